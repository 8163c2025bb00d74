# SPDX-License-Identifier: Apache-2.0
"""The pose transform that mmpose lacks. Registered without importing any toolbox."""

from __future__ import annotations

import numpy as np

from ..registry import TRANSFORMS, register


@register(TRANSFORMS)
class ClippedBBoxTransform:
    """Scale and turn a person's box by clipped normal draws; the centre stays.

    Scale factor ``clip(N(1, scale_std), 1 - scale_std, 1 + scale_std)``; rotation ``clip(N(0,
    rotate_std), -2 rotate_std, 2 rotate_std)`` degrees with probability ``rotate_prob``, else 0.
    Clipping gathers 32 % of the scales at the two ends (and 5 % of the rotations), where mmpose's
    ``RandomBBoxTransform`` draws from truncated normals.
    Source: pose_estimation/mmpose/datasets/pipelines/top_down_transform.py
    (``TopDownGetRandomScaleRotation``).

    Args:
        scale_std: Standard deviation and largest change of the scale, at least 0 and below 1.
        rotate_std: Standard deviation of the rotation in degrees.
        rotate_prob: Probability of a rotation.

    Raises:
        ValueError: An argument out of its range.
    """

    def __init__(
        self, scale_std: float = 0.5, rotate_std: float = 40.0, rotate_prob: float = 0.6
    ) -> None:
        if not 0 <= scale_std < 1:
            raise ValueError(f'scale_std={scale_std!r} must be at least 0 and below 1.')
        if rotate_std < 0:
            raise ValueError(f'rotate_std={rotate_std!r} must not be negative (degrees).')
        if not 0 <= rotate_prob <= 1:
            raise ValueError(f'rotate_prob={rotate_prob!r} must be between 0 and 1.')
        self.scale_std = scale_std
        self.rotate_std = rotate_std
        self.rotate_prob = rotate_prob

    def __call__(self, results: dict) -> dict:
        """Change ``bbox_scale`` (n, 2) and set ``bbox_rotation`` (n,), one draw per box."""
        num = len(results['bbox_scale'])
        scale = 1 + self.scale_std * np.random.randn(num, 1)
        scale = scale.clip(1 - self.scale_std, 1 + self.scale_std)
        rotation = self.rotate_std * np.random.randn(num)
        rotation = rotation.clip(-2 * self.rotate_std, 2 * self.rotate_std)
        rotated = np.random.rand(num) <= self.rotate_prob
        results['bbox_scale'] = results['bbox_scale'] * scale.astype(np.float32)
        results['bbox_rotation'] = np.where(rotated, rotation, 0).astype(np.float32)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale_std={self.scale_std}, rotate_std={self.rotate_std}, '
            f'rotate_prob={self.rotate_prob})'
        )
