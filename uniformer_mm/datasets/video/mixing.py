# SPDX-License-Identifier: Apache-2.0
"""Mixup and CutMix of a batch with its mirror image.

Sample ``i`` of ``B`` is mixed with sample ``B-1-i``, as in Sense-X/UniFormer @52a0415
``video_classification/slowfast/datasets/mixup.py`` (and timm). With two copies of each clip side
by side, a clip therefore meets another video's copy unless the batch holds a single video.
mmaction2's blendings draw a permutation instead, which leaves one sample in ``B`` unmixed and
mixes as many with their own copy; arithmetic and boxes are the same.

Use them inside mmaction2's ``RandomBatchAugment``, which picks one for each batch.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...registry import MODELS, register
from .checks import check_integer, check_positive


class _MirrorBlending:
    def __init__(self, alpha: float, num_classes: int) -> None:
        self.alpha = check_positive(self, 'alpha', alpha)
        # RandomBatchAugment reads the number of classes from the first blending's config.
        self.num_classes = check_integer(self, 'num_classes', num_classes)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(alpha={self.alpha}, num_classes={self.num_classes})'


def _mirror_labels(label_BK: Tensor, weight: float) -> Tensor:
    return weight * label_BK + (1 - weight) * label_BK.flip(0)


@register(MODELS)
class MirrorMixup(_MirrorBlending):
    """Mixup: every pixel is a weighted mean of two clips.

    Args:
        alpha: The weight is drawn from Beta(alpha, alpha), once per batch.
        num_classes: Classes of the labels.

    Raises:
        ValueError: ``alpha`` not positive, or no classes.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Blend clips ``(B, N, C, T, H, W)`` and labels ``(B, K)``."""
        weight = float(np.random.beta(self.alpha, self.alpha))
        mixed = imgs * weight + imgs.flip(0) * (1 - weight)
        return mixed, _mirror_labels(label, weight)


@register(MODELS)
class MirrorCutmix(_MirrorBlending):
    """CutMix: one box, the same in all frames and samples, comes from the other clip.

    The box has ``sqrt(1 - weight)`` of each side, a uniform centre, and is clipped at the border;
    the labels' weight is the share of the pixels that is left.

    Args:
        alpha: The weight is drawn from Beta(alpha, alpha), once per batch.
        num_classes: Classes of the labels.

    Raises:
        ValueError: ``alpha`` not positive, or no classes.
    """

    @staticmethod
    def random_box(height: int, width: int, weight: float) -> tuple[int, int, int, int]:
        """``(top, bottom, left, right)`` of the box."""
        bounds = []
        for side in (height, width):
            half = int(side * np.sqrt(1 - weight)) // 2
            centre = np.random.randint(side)
            bounds += [max(centre - half, 0), min(centre + half, side)]
        return tuple(bounds)

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Blend clips ``(B, N, C, T, H, W)`` and labels ``(B, K)``."""
        height, width = imgs.shape[-2:]
        weight = float(np.random.beta(self.alpha, self.alpha))
        top, bottom, left, right = self.random_box(height, width, weight)
        mixed = imgs.clone()
        mixed[..., top:bottom, left:right] = imgs.flip(0)[..., top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, _mirror_labels(label, weight)
