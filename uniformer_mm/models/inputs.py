# SPDX-License-Identifier: Apache-2.0
"""What a network can take, and one sentence for everything else."""

from __future__ import annotations

from torch import Tensor, fx

MIN_SIDE = 32


def check_input(x: Tensor, ndim: int, in_channels: int) -> None:
    """Refuse inputs that a network cannot take.

    DIFFERS: the official ImageNet classifier with a patch stem takes 224 pixels only.

    Args:
        x: The input.
        ndim: 2 for images, 3 for clips.
        in_channels: Channels that the network was built for.

    Raises:
        ValueError: No tensor, a wrong number of axes or channels, a side below 32 pixels, or no
            sample or frame.
    """
    layout = 'B C H W' if ndim == 2 else 'B C T H W'
    if isinstance(x, fx.Proxy):
        return  # torch.fx records the network: there are no values yet.
    if not isinstance(x, Tensor):
        raise ValueError(
            f'input must be a torch.Tensor ({layout}), not {type(x).__name__}; use '
            'torch.from_numpy for an array of NumPy and torch.stack for a list of samples.'
        )
    if x.ndim != ndim + 2:
        raise ValueError(
            f'input of shape {tuple(x.shape)} has {x.ndim} axes, but UniFormer{ndim}d takes '
            f'{ndim + 2} ({layout}); {_right_axes(x, ndim, in_channels)}.'
        )
    if x.shape[1] != in_channels:
        raise ValueError(
            f'input of shape {tuple(x.shape)} has {x.shape[1]} channels, but the network was built '
            f'for in_channels={in_channels} ({layout}).'
        )
    if min(x.shape[-2:]) < MIN_SIDE:
        raise ValueError(
            f'input of shape {tuple(x.shape)} is too small: height and width must be at least '
            f'{MIN_SIDE} pixels; resize or pad it.'
        )
    if x.shape[0] == 0 or x.shape[2] == 0:
        raise ValueError(
            f'input of shape {tuple(x.shape)} is empty; give at least one sample'
            + ('.' if ndim == 2 else ' of at least one frame.')
        )


def _right_axes(x: Tensor, ndim: int, in_channels: int) -> str:
    """What to do about an input with a wrong number of axes, in words."""
    if ndim == 2 and x.ndim == 5:
        return 'use the 3-D network for clips'
    if x.ndim != ndim + 1:
        return 'give it these axes'
    if ndim == 2 or x.shape[1] != in_channels:
        return 'add the batch axis: x[None]'
    one_clip = ', or the batch axis: x[None]' if x.shape[0] == in_channels else ''
    return f'add a time axis (one clip of T frames per sample){one_clip}'


def wrong_dtype(x: Tensor, weights: Tensor) -> str:
    """One sentence for an input whose dtype does not go with that of the weights."""
    if not x.is_floating_point():
        return f'input has dtype {x.dtype}; convert it to float and normalise it as in training.'
    return (
        f'input has dtype {x.dtype}, but the weights have {weights.dtype}; convert one of them, or '
        'run under autocast, which takes all but float64.'
    )
