# SPDX-License-Identifier: Apache-2.0
"""From images to clips: a time axis for convolution weights.

Shapes: ``O I kt kh kw``. Source: Sense-X/UniFormer @52a0415
``video_classification/slowfast/models/uniformer.py`` (``inflate_weight``: mean by default).
"""

from __future__ import annotations

import torch
from torch import Tensor

INFLATIONS = ('mean', 'centre')


def inflate(weight: Tensor, shape: torch.Size | tuple[int, ...], mode: str = 'mean') -> Tensor:
    """Give a weight the time axis of ``shape``.

    A still clip filtered by the result gives, away from the ends of time, what the 2-D filter
    gives: the weight is spread evenly over the time kernel (``'mean'``) or put into its middle
    frame (``'centre'``, which holds at the ends too).

    Args:
        weight: 2-D kernel ``O I kh kw``, or 3-D kernel ``O I 1 kh kw`` of one frame.
        shape: Shape of the 3-D kernel ``O I kt kh kw``, kt odd.
        mode: ``'mean'`` (official) or ``'centre'``.

    Returns:
        A new tensor of ``shape``, in the weight's dtype.

    Raises:
        ValueError: An unknown mode, or shapes that differ in more than the time axis.
    """
    if mode not in INFLATIONS:
        raise ValueError(f'inflation={mode!r} is not known; use one of {INFLATIONS}.')
    still = weight.unsqueeze(2) if weight.ndim == len(shape) - 1 else weight
    frames = shape[2] if len(shape) == 5 else 0
    fits = (
        still.ndim == len(shape) == 5
        and still.shape[2] == 1
        and frames % 2 == 1
        and still.shape[:2] + still.shape[3:] == torch.Size(shape[:2]) + torch.Size(shape[3:])
    )
    if not fits:
        raise ValueError(
            f'a weight of shape {tuple(weight.shape)} cannot be inflated to {tuple(shape)}; only a '
            'time kernel of one frame can grow, to an odd number of frames.'
        )
    if mode == 'mean':
        return still.repeat(1, 1, frames, 1, 1) / frames
    inflated = still.new_zeros(tuple(shape))
    inflated[:, :, frames // 2] = still[:, :, 0]
    return inflated


def can_inflate(weight: Tensor, shape: torch.Size | tuple[int, ...]) -> bool:
    """Whether ``weight`` differs from ``shape`` by a time axis that :func:`inflate` can add."""
    source, target = tuple(weight.shape), tuple(shape)
    if len(target) != 5 or target[2] % 2 == 0 or len(source) not in (4, 5):
        return False
    spatial = source[:2] + source[-2:]
    return spatial == target[:2] + target[3:] and (len(source) == 4 or source[2] == 1)
