# SPDX-License-Identifier: Apache-2.0
"""Decoding of samples with several views."""

from __future__ import annotations

import numpy as np

from ...registry import TRANSFORMS, register


@register(TRANSFORMS)
class DecordDecodeOnce:
    """mmaction2's ``DecordDecode``, with each frame of the sample decoded once, in order.

    Where a view begins before the last one ends, decord goes back to a keyframe, of which a video
    may have one in 250 frames, and decodes again from there. The frames are the same where decord
    finds its way back, as in MP4 files; in some AVI files it does not, and then these are the right
    ones. Follows ``DecordInit`` and the sampling.
    """

    def __call__(self, results: dict) -> dict:
        """Decode ``frame_inds`` of ``video_reader`` into ``imgs``, ``(H, W, 3)`` uint8."""
        wanted, order = np.unique(results['frame_inds'], return_inverse=True)
        frames = results['video_reader'].get_batch(wanted).asnumpy()
        results['video_reader'] = None
        # Copies: transforms may work in place, each on its own view.
        results['imgs'] = list(frames[order])
        results['original_shape'] = results['img_shape'] = frames.shape[1:3]
        return results

    def __repr__(self) -> str:
        return 'DecordDecodeOnce()'
