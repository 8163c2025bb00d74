# SPDX-License-Identifier: Apache-2.0
"""Resizing, cropping and laying out a video's views in one pass over its frames."""

from __future__ import annotations

import numpy as np

from ...datasets.video.geometry import ClipShortSideResize, ClipUniformCrop
from ...registry import TRANSFORMS, register


@register(TRANSFORMS)
class StackViews:
    """``ClipShortSideResize``, ``ClipUniformCrop`` and mmaction2's ``FormatShape('NCTHW')``.

    Each distinct frame is resized once, however many views and crops show it, and written where it
    belongs: no list of all resized frames, no transposed copy. The result is the same array.

    Args:
        short_side: Pixels of the shorter side.
        size: Side of the crop in pixels.
        num_crops: 1 or 3.

    Raises:
        ValueError: As the two transforms.
    """

    def __init__(self, short_side: int, size: int, num_crops: int = 1) -> None:
        self.resize = ClipShortSideResize(short_side)
        self.crop = ClipUniformCrop(size, num_crops)

    def __call__(self, results: dict) -> dict:
        """Turn ``imgs`` (frames of all views) into ``(crops * views, 3, T, size, size)``."""
        frames, size = results['imgs'], self.crop.size
        views, length = results['num_clips'], results['clip_len']
        places: dict[int, list[int]] = {}
        for place, index in enumerate(results['frame_inds']):
            places.setdefault(int(index), []).append(place)
        stacked = None
        for at in places.values():
            frame = self.resize({'imgs': [frames[at[0]]]})
            cuts_HWC = self.crop(frame)['imgs']
            if stacked is None:
                shape = (len(cuts_HWC), views, cuts_HWC[0].shape[2], length, size, size)
                stacked = np.empty(shape, cuts_HWC[0].dtype)
            for crop, cut_HWC in enumerate(cuts_HWC):
                for place in at:
                    view, time = divmod(place, length)
                    stacked[crop, view, :, time] = cut_HWC.transpose(2, 0, 1)
        results['imgs'] = stacked.reshape(-1, *stacked.shape[2:])
        results['input_shape'] = results['imgs'].shape
        results['img_shape'] = (size, size)
        return results

    def __repr__(self) -> str:
        return (
            f'StackViews(short_side={self.resize.short_side}, size={self.crop.size}, '
            f'num_crops={self.crop.num_crops})'
        )
