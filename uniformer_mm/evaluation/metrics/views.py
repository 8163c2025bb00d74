# SPDX-License-Identifier: Apache-2.0
"""Accuracy of videos from the logits of all their views, which are kept.

The numbers are those of mmaction2's own metric, to the last digit that it prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ...registry import METRICS, register

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
