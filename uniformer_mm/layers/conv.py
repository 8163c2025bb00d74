# SPDX-License-Identifier: Apache-2.0
"""Convolutions for 2 axes (images) and 3 (clips): PyTorch's own classes, chosen by ``ndim``."""

from __future__ import annotations

from torch import nn

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}


def extent(ndim: int, space: int, time: int) -> tuple[int, ...]:
    """Kernel, stride or padding for ``ndim`` axes: ``time`` first if there is a time axis."""
    return (time,) * (ndim - 2) + (space,) * 2


def pointwise(ndim: int, in_channels: int, out_channels: int) -> nn.Conv2d | nn.Conv3d:
    """1x1 convolution with bias."""
    return CONV[ndim](in_channels, out_channels, 1)


def depthwise(ndim: int, channels: int, kernel: int) -> nn.Conv2d | nn.Conv3d:
    """Depthwise convolution with an odd cubic kernel, stride 1, size kept, with bias."""
    return CONV[ndim](channels, channels, kernel, 1, kernel // 2, groups=channels)
