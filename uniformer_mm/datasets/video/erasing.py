# SPDX-License-Identifier: Apache-2.0
"""Random erasing of clips."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from ...registry import TRANSFORMS, register
from .checks import check_number, check_range

MAX_ATTEMPTS = 100


@register(TRANSFORMS)
class CubeErasing:
    """Replaces one box, the same in all frames, by noise that is drawn for each pixel and frame.

    The noise is standard normal after normalisation. Here the data preprocessor normalises, after
    this transform, so the noise is drawn in pixel units as ``mean + std * N(0, 1)``.

    Source: Sense-X/UniFormer @52a0415 ``slowfast/datasets/random_erasing.py`` (``cube``, ``pixel``
    mode, one box); Zhong et al., arXiv 1708.04896.

    Args:
        prob: Probability to erase.
        mean: Mean of the noise in pixel units, the preprocessor's mean.
        std: Standard deviation of the noise in pixel units, the preprocessor's std.
        area_range: Area of the box as a share of the frame.
        aspect_ratio_range: Height over width of the box, log-uniform.

    Raises:
        ValueError: ``prob`` outside ``[0, 1]``, ranges that do not rise or shares above 1; frames
            that are still integers.
    """

    def __init__(
        self,
        prob: float = 0.25,
        mean: float = 114.75,
        std: float = 57.375,
        area_range: Sequence[float] = (0.02, 1 / 3),
        aspect_ratio_range: Sequence[float] = (0.3, 1 / 0.3),
    ) -> None:
        self.prob = check_number(self, 'prob', prob, 1)
        self.mean = mean
        self.std = std
        self.area_range = check_range(self, 'area_range', area_range, 1)
        self.aspect_ratio_range = check_range(self, 'aspect_ratio_range', aspect_ratio_range)

    def random_box(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """``(top, left, height, width)`` of a box inside the frame; None if none was found."""
        low, high = (math.log(ratio) for ratio in self.aspect_ratio_range)
        for _ in range(MAX_ATTEMPTS):
            area = random.uniform(*self.area_range) * height * width
            ratio = math.exp(random.uniform(low, high))
            box_h = round(math.sqrt(area * ratio))
            box_w = round(math.sqrt(area / ratio))
            if box_h < height and box_w < width:
                top = random.randint(0, height - box_h)
                left = random.randint(0, width - box_w)
                return top, left, box_h, box_w
        return None

    def __call__(self, results: dict) -> dict:
        """Erase in ``imgs``, which must be float (after ``ClipRandomResizedCrop``)."""
        frames = results['imgs']
        if not np.issubdtype(frames[0].dtype, np.floating):
            raise ValueError(
                f'CubeErasing: the frames are {frames[0].dtype}, which would cut the noise to '
                '0..255; put it after ClipRandomResizedCrop, whose frames are float32.'
            )
        if random.random() > self.prob:
            return results
        box = self.random_box(*frames[0].shape[:2])
        if box is not None:
            top, left, box_h, box_w = box
            for frame in frames:
                patch = frame[top : top + box_h, left : left + box_w]
                patch[...] = self.mean + self.std * np.random.standard_normal(patch.shape)
        return results

    def __repr__(self) -> str:
        return f'CubeErasing(prob={self.prob}, mean={self.mean}, std={self.std})'
