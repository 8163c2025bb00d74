# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video make a clip.

Letters: ``L`` frames of the video, ``n`` frames of a clip, ``r`` frame interval, ``V`` views.
Source: Sense-X/UniFormer @52a0415 ``video_classification/slowfast/datasets/decoder.py`` (Kinetics,
with ``USE_OFFSET_SAMPLING`` and decord) and ``sth.py`` (Something-Something).
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import torch

from ...registry import TRANSFORMS, register
from .checks import check_flag, check_integer


class _SampleFrames:
    """Writes the frame indices of all views; subclasses give the 0-based indices of one."""

    def __init__(self, clip_len: int, num_clips: int, test_mode: bool) -> None:
        self.clip_len = check_integer(self, 'clip_len', clip_len)
        self.num_clips = check_integer(self, 'num_clips', num_clips)
        self.test_mode = check_flag(self, 'test_mode', test_mode)
        if num_clips > 1 and not test_mode:
            raise ValueError(
                f'{type(self).__name__}: num_clips={num_clips} needs test_mode=True; training '
                'takes one random clip (AugmentedCopies repeats it).'
            )

    def random_clip(self, total_frames: int) -> np.ndarray:
        """The ``n`` indices of a random clip."""
        raise NotImplementedError

    def view(self, total_frames: int, index: int) -> np.ndarray:
        """The ``n`` indices of view ``index``."""
        raise NotImplementedError

    def __call__(self, results: dict) -> dict:
        """Write ``frame_inds`` (``V * n`` indices counted from ``start_index``).

        Raises:
            ValueError: The video has no frame.
        """
        total = results['total_frames']
        if total < 1:
            name = results.get('filename', results.get('frame_dir', 'the video'))
            raise ValueError(f'{name}: total_frames={total}, but a clip needs at least one frame.')
        if self.test_mode:
            clips = [self.view(total, index) for index in range(self.num_clips)]
        else:
            clips = [self.random_clip(total)]
        results['frame_inds'] = np.concatenate(clips) + results['start_index']
        results['clip_len'] = self.clip_len
        results['num_clips'] = self.num_clips
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(clip_len={self.clip_len}, num_clips={self.num_clips}, '
            f'test_mode={self.test_mode})'
        )


@register(TRANSFORMS)
class LinspaceSampleFrames(_SampleFrames):
    """Dense sampling for Kinetics: ``n`` points spread evenly over ``n * r`` frames.

    The indices are ``linspace(start, start + n*r - 1, n)``, clamped to the video and truncated, so
    the step is ``(n*r - 1) / (n - 1)``, a little more than ``r``. With ``delta = max(L - n*r, 0)``
    training draws a real start from ``[0, delta]``; view ``i`` of ``V`` starts at
    ``i * floor(delta / (V-1))``, a single one at ``floor(delta / 2)``. The frame rate is ignored.

    Args:
        clip_len: Frames of a clip, ``n``.
        frame_interval: Nominal interval, ``r``.
        num_clips: Views per video in test mode, ``V``.
        test_mode: Take the views instead of a random clip.

    Raises:
        ValueError: A size below one, or several clips outside test mode.
    """

    def __init__(
        self, clip_len: int, frame_interval: int, num_clips: int = 1, test_mode: bool = False
    ) -> None:
        super().__init__(clip_len, num_clips, test_mode)
        self.frame_interval = check_integer(self, 'frame_interval', frame_interval)

    def _slack(self, total_frames: int) -> int:
        return max(total_frames - self.clip_len * self.frame_interval, 0)

    def _indices(self, start: float, total_frames: int) -> np.ndarray:
        end = start + self.clip_len * self.frame_interval - 1
        points = torch.linspace(start, end, self.clip_len)
        return points.clamp(0, total_frames - 1).long().numpy()

    def random_clip(self, total_frames: int) -> np.ndarray:
        """The indices from a real-valued random start."""
        return self._indices(random.uniform(0, self._slack(total_frames)), total_frames)

    def view(self, total_frames: int, index: int) -> np.ndarray:
        """The indices of one of the evenly spread views."""
        slack = self._slack(total_frames)
        start = slack // 2 if self.num_clips == 1 else index * (slack // (self.num_clips - 1))
        return self._indices(start, total_frames)

    def __call__(self, results: dict) -> dict:
        """Write ``frame_inds``; see the base class."""
        results['frame_interval'] = self.frame_interval
        return super().__call__(results)


@register(TRANSFORMS)
class SegmentSampleFrames(_SampleFrames):
    """Uniform sampling for Something-Something: one frame from each of ``n`` equal segments.

    With ``g = (L-1) / n`` segment ``i`` is ``[round(g*i), round(g*(i+1))]`` (round half to even).
    Training draws an integer from it, both ends included; view ``v`` of ``V`` takes
    ``round(g*i) + int(g / (V+1) * (v+1))``.

    Args:
        clip_len: Frames of a clip, ``n``.
        num_clips: Views per video in test mode, ``V``.
        test_mode: Take the views instead of a random clip.

    Raises:
        ValueError: A size below one, or several clips outside test mode.
    """

    def __init__(self, clip_len: int, num_clips: int = 1, test_mode: bool = False) -> None:
        super().__init__(clip_len, num_clips, test_mode)

    def _bounds(self, total_frames: int) -> np.ndarray:
        segment = (total_frames - 1) / self.clip_len
        return np.round(segment * np.arange(self.clip_len + 1)).astype(int)

    def random_clip(self, total_frames: int) -> np.ndarray:
        """One random frame of each segment."""
        bounds = self._bounds(total_frames)
        return np.array([random.randint(low, high) for low, high in pairwise(bounds)])

    def view(self, total_frames: int, index: int) -> np.ndarray:
        """The frame at the same offset of each segment."""
        segment = (total_frames - 1) / self.clip_len
        offset = int(segment / (self.num_clips + 1) * (index + 1))
        return self._bounds(total_frames)[:-1] + offset
