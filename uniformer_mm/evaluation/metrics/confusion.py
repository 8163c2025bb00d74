# SPDX-License-Identifier: Apache-2.0
"""IoU of label maps from confusion matrices, which take little room and lose nothing.

The numbers are those of mmseg's own metric, to the last digit that it prints.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ...registry import METRICS, register


def confusion_of(guess: Tensor, truth: Tensor, classes: int, ignore: int) -> np.ndarray:
    """Confusion matrix of two label maps in one pass.

    Args:
        guess: Predicted labels, below ``classes``.
        truth: True labels of the same shape; ``ignore`` is left out.
        classes: Number of classes, K.
        ignore: Label that does not count.

    Returns:
        Pixel counts ``(K, K)``, true class first.
    """
    counted = truth != ignore
    pairs = truth[counted].long() * classes + guess[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu().numpy()


def iou_summary(confusion_KK: np.ndarray) -> dict[str, np.ndarray]:
    """IoU and accuracy of each class (NaN where it does not occur), and of all pixels; 0..1."""
    hit_K = np.diagonal(confusion_KK).astype(float)
    true_K, guessed_K = confusion_KK.sum(1), confusion_KK.sum(0)
    with np.errstate(divide='ignore', invalid='ignore'):
        return {
            'aAcc': hit_K.sum() / true_K.sum(),
            'IoU': hit_K / (true_K + guessed_K - hit_K),
            'Acc': hit_K / true_K,
        }


@register(METRICS)
class ConfusionIoU(BaseMetric):
    """Pixel accuracy, mean IoU and mean accuracy from a confusion matrix.

    mmseg's ``IoUMetric`` adds single-precision histograms, which lose pixels above 2^24 of them;
    integers do not. Both print two decimals.

    Args:
        ignore_index: Label that does not count.
        prefix: As in mmengine.
    """

    def __init__(self, ignore_index: int = 255, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep each image's confusion matrix (occupied cells only) and its predicted map."""
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            guess = sample['pred_sem_seg']['data'].squeeze()
            truth = sample['gt_sem_seg']['data'].squeeze().to(guess)
            confusion = confusion_of(guess, truth, classes, self.ignore_index).ravel()
            (cells,) = np.nonzero(confusion)
            labels = guess.to(torch.uint8).cpu().numpy()
            self.results.append({
                'cells': cells.astype(np.int32),
                'counts': confusion[cells].astype(np.int32),
                'map': zlib.compress(labels.tobytes(), 1),
                'shape': labels.shape,
            })  # fmt: skip

    def compute_metrics(self, results: list) -> dict[str, float]:
        """``aAcc``, ``mIoU`` and ``mAcc`` in percent with two decimals, as mmseg gives them."""
        classes = len(self.dataset_meta['classes'])
        summary = iou_summary(sum(image_confusion(result, classes) for result in results))
        metrics = {'aAcc': summary['aAcc'], 'mIoU': summary['IoU'], 'mAcc': summary['Acc']}
        return {
            name: float(np.round(np.nanmean(value) * 100, 2)) for name, value in metrics.items()
        }


def image_confusion(result: dict, classes: int) -> np.ndarray:
    """Confusion matrix ``(K, K)`` of one image from what :class:`ConfusionIoU` kept."""
    confusion = np.zeros(classes**2, np.int64)
    confusion[result['cells']] = result['counts']
    return confusion.reshape(classes, classes)


def image_labels(result: dict) -> np.ndarray:
    """Predicted label map (H, W) of one image from what :class:`ConfusionIoU` kept."""
    return np.frombuffer(zlib.decompress(result['map']), np.uint8).reshape(result['shape'])
