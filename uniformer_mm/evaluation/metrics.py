# SPDX-License-Identifier: Apache-2.0
"""Metrics that keep little of each sample and lose nothing: video views and label maps.

Both give the numbers of the toolboxes' own metrics, to the last digit that those print.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..registry import METRICS, register

FUSIONS = ('logits', 'prob')


def fuse_views(logits_VK: Tensor, fusion: str) -> Tensor:
    """Scores of a video from those of its views.

    Args:
        logits_VK: Logits of V views for K classes.
        fusion: ``'logits'``: their mean, which ranks as the official sum; ``'prob'``: the mean of
            the softmaxes, mmaction2's default.

    Returns:
        Scores ``(K,)``.
    """
    if fusion not in FUSIONS:
        raise ValueError(f'fusion={fusion!r} is not known; use one of {FUSIONS}.')
    views_1VK = logits_VK[None]
    if fusion == 'prob':
        views_1VK = views_1VK.softmax(dim=2)
    return views_1VK.mean(dim=1)[0]


def mean_class_accuracy(guesses: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur in either array of the share of hits, 0..1."""
    classes = np.union1d(guesses, labels)
    hits = [(guesses[labels == c] == c).mean() if (labels == c).any() else 0.0 for c in classes]
    return float(np.mean(hits))


@register(METRICS)
class ViewAccuracy(BaseMetric):
    """Top-1 and top-5 accuracy of videos from the logits of all their views.

    The head must hand out the views (``average_clips=None``). ``acc/top1``, ``acc/top5`` and
    ``acc/mean1`` belong to ``fusion``; ``acc/top1_prob`` or ``acc/top1_logits`` to the other one.

    Args:
        fusion: See :func:`fuse_views`.
        topk: Which accuracies.
        prefix: As in mmengine.
    """

    default_prefix = 'acc'

    def __init__(
        self, fusion: str = 'logits', topk: Sequence[int] = (1, 5), prefix: str | None = None
    ) -> None:
        super().__init__(prefix=prefix)
        if fusion not in FUSIONS:
            raise ValueError(f'fusion={fusion!r} is not known; use one of {FUSIONS}.')
        self.fusion = fusion
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep ``logits`` (views, classes) and ``label`` of each video."""
        for sample in data_samples:
            scores = sample['pred_score'].detach().cpu()
            if scores.ndim != 2:
                raise ValueError(
                    f'ViewAccuracy: pred_score has shape {tuple(scores.shape)}, not (views, '
                    'classes); set model.cls_head.average_clips=None.'
                )
            label = int(sample['gt_label'].item())
            self.results.append({'logits': scores.float().numpy(), 'label': label})

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Accuracies as shares, 0..1."""
        labels = np.array([result['label'] for result in results])
        metrics: dict[str, float] = {}
        for fusion in sorted(FUSIONS, key=lambda name: name != self.fusion):
            scores = np.stack([
                fuse_views(torch.from_numpy(result['logits']), fusion).numpy() for result in results
            ])  # fmt: skip
            ranked = np.argsort(scores, axis=1)[:, ::-1]
            for k in self.topk:
                hit = (ranked[:, :k] == labels[:, None]).any(axis=1).mean()
                name = f'top{k}' if fusion == self.fusion else f'top{k}_{fusion}'
                metrics[name] = float(hit)
            if fusion == self.fusion:
                metrics['mean1'] = mean_class_accuracy(scores.argmax(axis=1), labels)
        return metrics


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
