# SPDX-License-Identifier: Apache-2.0
"""Maps as tokens and back. On channels-last memory all but the pixels are views.

Axes are counted from the front and sizes are taken one by one, because exporters and ``torch.fx``
record exactly what is written here.
"""

from __future__ import annotations

from torch import Size, Tensor

CHANNELS_LAST = {2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}
CHANNELS_FIRST = {2: (0, 3, 1, 2), 3: (0, 4, 1, 2, 3)}


def channels_last(x: Tensor, ndim: int) -> Tensor:
    """The same map in channels-last memory. Shape: ``(B, C, *S) -> (B, C, *S)``."""
    return x.permute(CHANNELS_LAST[ndim]).contiguous().permute(CHANNELS_FIRST[ndim])


def to_tokens(x: Tensor, ndim: int) -> Tensor:
    """Every position of a map as a token. Shape: ``(B, C, *S) -> (B, N, C)``.

    Neither here nor in :func:`to_map` is the flat map ``(B, C, N)`` transposed: of a single sample
    that is a view whose batch stride says nothing, also in the backward pass, and with it the
    gradient of PyTorch's BatchNorm on a CPU (2.14) is wrong.

    Args:
        x: A map.
        ndim: Number of axes S.
    """
    return x.permute(CHANNELS_LAST[ndim]).flatten(1, ndim)


def to_map(tokens: Tensor, shape: Size, ndim: int) -> Tensor:
    """The inverse of :func:`to_tokens`. Shape: ``(B, N, C) -> (B, C, *S)``; ``shape`` has S."""
    return tokens.unflatten(1, shape[2:]).permute(CHANNELS_FIRST[ndim])


def map_to_pixels(x: Tensor) -> Tensor:
    """The frames of each pixel. Shape: ``(B, C, T, H, W) -> (B H W, T, C)``."""
    return x.permute(0, 3, 4, 2, 1).flatten(0, 2)


def pixels_to_frames(pixels: Tensor, shape: Size) -> Tensor:
    """From :func:`map_to_pixels` of a map of ``shape`` to ``(B T, H W, C)``."""
    B, C, T, H, W = shape[0], shape[1], shape[2], shape[3], shape[4]
    return pixels.reshape(B, H, W, T, C).permute(0, 3, 1, 2, 4).reshape(B * T, H * W, C)


def map_to_frames(x: Tensor) -> Tensor:
    """The pixels of each frame. Shape: ``(B, C, T, H, W) -> (B T, H W, C)``."""
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)
