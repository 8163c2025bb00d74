# SPDX-License-Identifier: Apache-2.0
"""Crops and resizing of clips, the same box for all frames.

Frames come out as float32 in pixel units: the official code normalises first and interpolates
floats, and bilinear interpolation commutes with that affine map, so nothing may be rounded here.
Source: Sense-X/UniFormer @52a0415 ``video_classification/slowfast/datasets/transform.py``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import cv2
import numpy as np

from ...checks import is_integer
from ...registry import TRANSFORMS, register
from .checks import check_integer, check_range

MAX_ATTEMPTS = 10


def resize_frames(frames: Sequence[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Bilinear resizing without antialiasing (half-pixel centres), in float32.

    Args:
        frames: ``(H, W, C)`` frames.
        height: New height in pixels.
        width: New width in pixels.

    Returns:
        New ``(height, width, C)`` float32 frames.
    """
    return [
        cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        for frame in frames
    ]


def _check_size(owner: object, name: str, value: int) -> int:
    return check_integer(owner, name, value, expected='a size in pixels')


@register(TRANSFORMS)
class ClipRandomResizedCrop:
    """Crops a random box (area, then log-uniform aspect ratio) and resizes it to a square.

    After ten boxes that do not fit, the largest central box of an allowed aspect ratio is taken.

    Args:
        size: Side of the output in pixels.
        area_range: Area of the box as a share of the frame.
        aspect_ratio_range: Width over height of the box.

    Raises:
        ValueError: ``size`` below one, ranges that do not rise or shares above 1.
    """

    def __init__(
        self,
        size: int,
        area_range: Sequence[float] = (0.08, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        self.size = _check_size(self, 'size', size)
        self.area_range = check_range(self, 'area_range', area_range, 1)
        self.aspect_ratio_range = check_range(self, 'aspect_ratio_range', aspect_ratio_range)

    def random_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """``(top, left, height, width)`` of the box to crop."""
        low, high = self.aspect_ratio_range
        for _ in range(MAX_ATTEMPTS):
            area = random.uniform(*self.area_range) * height * width
            ratio = math.exp(random.uniform(math.log(low), math.log(high)))
            box_w = round(math.sqrt(area * ratio))
            box_h = round(math.sqrt(area / ratio))
            if 0 < box_w <= width and 0 < box_h <= height:
                top = random.randint(0, height - box_h)
                left = random.randint(0, width - box_w)
                return top, left, box_h, box_w
        box_h, box_w = height, width
        if width / height < low:
            box_h = round(width / low)
        elif width / height > high:
            box_w = round(height * high)
        return (height - box_h) // 2, (width - box_w) // 2, box_h, box_w

    def __call__(self, results: dict) -> dict:
        """Crop and resize ``imgs``; note the box as ``crop_bbox`` (x1, y1, x2, y2)."""
        frames = results['imgs']
        top, left, box_h, box_w = self.random_box(*frames[0].shape[:2])
        cropped = [frame[top : top + box_h, left : left + box_w] for frame in frames]
        results['imgs'] = resize_frames(cropped, self.size, self.size)
        results['img_shape'] = (self.size, self.size)
        results['crop_bbox'] = np.array([left, top, left + box_w, top + box_h])
        return results

    def __repr__(self) -> str:
        return (
            f'ClipRandomResizedCrop(size={self.size}, area_range={self.area_range}, '
            f'aspect_ratio_range={self.aspect_ratio_range})'
        )


@register(TRANSFORMS)
class ClipShortSideResize:
    """Resizes so that the shorter side has ``short_side`` pixels; the longer one is floored.

    Args:
        short_side: Pixels of the shorter side.

    Raises:
        ValueError: ``short_side`` below one.
    """

    def __init__(self, short_side: int) -> None:
        self.short_side = _check_size(self, 'short_side', short_side)

    def __call__(self, results: dict) -> dict:
        """Resize ``imgs``."""
        height, width = results['imgs'][0].shape[:2]
        new_h = new_w = self.short_side
        if width < height:
            new_h = math.floor(height / width * self.short_side)
        else:
            new_w = math.floor(width / height * self.short_side)
        results['imgs'] = resize_frames(results['imgs'], new_h, new_w)
        results['img_shape'] = (new_h, new_w)
        return results

    def __repr__(self) -> str:
        return f'ClipShortSideResize(short_side={self.short_side})'


@register(TRANSFORMS)
class ClipUniformCrop:
    """Square crops spread along the longer side: the centre, or start, centre and end.

    The centre starts at ``ceil((side - size) / 2)``. Three crops multiply the views: all frames of
    the first crop come first.

    Args:
        size: Side of the crop in pixels.
        num_crops: 1 (centre) or 3 (left/top, centre, right/bottom).

    Raises:
        ValueError: Another number of crops; frames smaller than the crop.
    """

    def __init__(self, size: int, num_crops: int = 1) -> None:
        self.size = _check_size(self, 'size', size)
        if not is_integer(num_crops) or num_crops not in (1, 3):
            raise ValueError(f'ClipUniformCrop: num_crops={num_crops!r} must be 1 or 3.')
        self.num_crops = num_crops

    def offsets(self, height: int, width: int) -> list[tuple[int, int]]:
        """``(top, left)`` of each crop."""
        top, left = (math.ceil((side - self.size) / 2) for side in (height, width))
        if self.num_crops == 1:
            return [(top, left)]
        if height > width:
            return [(0, left), (top, left), (height - self.size, left)]
        return [(top, 0), (top, left), (top, width - self.size)]

    def __call__(self, results: dict) -> dict:
        """Crop ``imgs``; with three crops there are three times as many."""
        frames = results['imgs']
        height, width = frames[0].shape[:2]
        if min(height, width) < self.size:
            raise ValueError(
                f'ClipUniformCrop: size={self.size} does not fit into frames of {width}x{height}; '
                'put ClipShortSideResize before it.'
            )
        results['imgs'] = [
            frame[top : top + self.size, left : left + self.size]
            for top, left in self.offsets(height, width)
            for frame in frames
        ]
        results['img_shape'] = (self.size, self.size)
        return results

    def __repr__(self) -> str:
        return f'ClipUniformCrop(size={self.size}, num_crops={self.num_crops})'


@register(TRANSFORMS)
class RGBToBGR:
    """Reverses the channels of the frames: the official Something-Something models see BGR.

    mmaction2's ``RawFrameDecode`` yields RGB. The official loader keeps OpenCV's BGR through the
    whole pipeline, RandAugment's colour operations included, so this comes right after decoding.
    """

    def __call__(self, results: dict) -> dict:
        """Reverse the channels of ``imgs``."""
        results['imgs'] = [np.ascontiguousarray(frame[..., ::-1]) for frame in results['imgs']]
        return results

    def __repr__(self) -> str:
        return 'RGBToBGR()'
