# SPDX-License-Identifier: Apache-2.0
"""95 % confidence intervals of metrics that were measured on a random subset.

Accuracies have Wilson's interval. Mean IoU and AP are no means over images, so images are drawn
again with replacement (percentile bootstrap), which is done by weights instead of copies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Z_95 = 1.959963984540054
BOOTSTRAP_SAMPLES = 1000
AP_SAMPLES = 200

Interval = tuple[float, float]


def wilson(hits: int, total: int) -> Interval:
    """Wilson's score interval of a share, in percent."""
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f'hits={hits} of total={total} is no share.')
    share = hits / total
    centre = share + Z_95**2 / (2 * total)
    spread = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    scale = 100 / (1 + Z_95**2 / total)
    return max(0.0, (centre - spread) * scale), min(100.0, (centre + spread) * scale)


def image_weights(images: int, samples: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap sample, ``(samples, images)``."""
    chances = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, chances, size=samples)


def percentiles(values: np.ndarray) -> Interval:
    """The middle 95 % of bootstrap values, those without a value left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_iou_interval(hit_NK: np.ndarray, true_NK: np.ndarray, guess_NK: np.ndarray) -> Interval:
    """Bootstrap interval of the mean IoU in percent.

    Args:
        hit_NK: Pixels of each image and class that are right.
        true_NK: Pixels that are of the class.
        guess_NK: Pixels that are predicted to be.
    """
    weights_SN = image_weights(len(hit_NK), BOOTSTRAP_SAMPLES, seed=0)
    hit_SK, true_SK, guess_SK = (weights_SN @ part for part in (hit_NK, true_NK, guess_NK))
    union_SK = true_SK + guess_SK - hit_SK
    with np.errstate(invalid='ignore'):
        iou_SK = np.where(union_SK > 0, hit_SK / union_SK, np.nan)
    return percentiles(100 * np.nanmean(iou_SK, axis=1))


class ResampledAP:
    """COCO AP under any weights of the images, from one ``COCOeval.evaluate()``.

    Follows ``COCOeval.accumulate`` for all areas and the largest number of detections.

    Args:
        evaluation: pycocotools' COCOeval after ``evaluate()``.
    """

    def __init__(self, evaluation: Any) -> None:
        params = evaluation.params
        self.recalls = np.asarray(params.recThrs)
        self.images = len(params.imgIds)
        self.categories = []
        areas, limit = len(params.areaRng), params.maxDets[-1]
        for category in range(len(params.catIds)):
            start = category * areas * self.images
            found = [
                (image, entry)
                for image, entry in enumerate(evaluation.evalImgs[start : start + self.images])
                if entry is not None
            ]
            if found:
                self.categories.append(_Category(found, self.images, limit))

    def per_category(self, weights_N: np.ndarray) -> np.ndarray:
        """AP in percent of each category that occurs, NaN where the drawn images have none."""
        return np.array([100 * c.precision(weights_N, self.recalls) for c in self.categories])

    def value(self, weights_N: np.ndarray | None = None) -> float:
        """AP in percent, of the images as they are by default."""
        weights_N = np.ones(self.images) if weights_N is None else weights_N
        values = self.per_category(weights_N)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')

    def interval(self) -> Interval:
        """Bootstrap interval in percent."""
        weights_SN = image_weights(self.images, AP_SAMPLES, seed=0)
        return percentiles(np.array([self.value(weights_N) for weights_N in weights_SN]))


class _Category:
    """Detections of one category, best first: whether each is right at each IoU, and its image."""

    def __init__(self, found: list[tuple[int, dict]], images: int, limit: int) -> None:
        scores = np.concatenate([entry['dtScores'][:limit] for _, entry in found])
        order = np.argsort(-scores, kind='mergesort')
        ignored_TD = np.concatenate([e['dtIgnore'][:, :limit] for _, e in found], axis=1)[:, order]
        matched_TD = np.concatenate([e['dtMatches'][:, :limit] for _, e in found], axis=1)[:, order]
        counts = [(image, len(entry['dtScores'][:limit])) for image, entry in found]
        self.image_D = np.repeat(*zip(*counts, strict=True))[order]
        self.right_TD = (matched_TD > 0) & (ignored_TD == 0)
        self.wrong_TD = (matched_TD == 0) & (ignored_TD == 0)
        self.truths_N = np.zeros(images)
        for image, entry in found:
            self.truths_N[image] = np.count_nonzero(np.asarray(entry['gtIgnore']) == 0)

    def precision(self, weights_N: np.ndarray, recalls: np.ndarray) -> float:
        truths = weights_N @ self.truths_N
        if not truths:
            return float('nan')
        weight_D = weights_N[self.image_D]
        right_TD = np.cumsum(self.right_TD * weight_D, axis=1)
        wrong_TD = np.cumsum(self.wrong_TD * weight_D, axis=1)
        precision_TD = right_TD / (right_TD + wrong_TD + np.spacing(1))
        precision_TD = np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1]
        total = 0.0
        for recall_D, best_D in zip(right_TD / truths, precision_TD, strict=True):
            places = np.searchsorted(recall_D, recalls, side='left')
            reached = places < len(recall_D)
            total += best_D[places[reached]].sum() / len(recalls)
        return total / len(right_TD)
