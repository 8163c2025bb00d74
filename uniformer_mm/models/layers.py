# SPDX-License-Identifier: Apache-2.0
"""Layers whose rank (2 for images, 3 for videos) is data.

Shapes: ``B`` batch, ``C`` channels, ``S`` the axes ``H W`` or ``T H W``, ``N`` tokens.
Source: arXiv 2201.09450 section 3; Sense-X/UniFormer @52a0415
``image_classification/models/uniformer.py``, ``video_classification/slowfast/models/uniformer.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
BATCH_NORM_TYPES = (*BATCH_NORM.values(), nn.SyncBatchNorm)

BLOCK_NORM_EPS = 1e-6
PATCH_NORM_EPS = 1e-5


def extent(rank: int, space: int, time: int) -> tuple[int, ...]:
    """Kernel, stride or padding of ``rank`` axes: ``time`` first if there is a time axis."""
    return (time,) * (rank - 2) + (space,) * 2


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map. Shape: ``x_BCS -> y_BCS``."""

    def forward(self, x_BCS: Tensor) -> Tensor:
        """Normalise each position over its channels."""
        return super().forward(x_BCS.movedim(1, -1)).movedim(-1, 1)


class PatchEmbed(nn.Module):
    """Non-overlapping convolution (k = s in space) followed by LayerNorm with eps 1e-5.

    The spatial size is floored. In the 3-D stem time is halved by a kernel of 3 frames.

    Args:
        rank: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Kernel in pixels (and frames).
        stride: Stride in pixels (and frames).
        padding: Zero padding in pixels (and frames).
    """

    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm(out_channels, eps=PATCH_NORM_EPS)
        self.proj = CONV[rank](in_channels, out_channels, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Embed. Shape: ``x_BCS -> y_BCS`` at the reduced size."""
        return self.norm(self.proj(x))


class ConvEmbed(nn.Module):
    """Overlapping 3x3 convolutions with BatchNorm: the stem and downsampling of small_plus.

    Args:
        layers: The convolutions, norms and activations in order; their positions are part of
            the official state-dict keys (``proj.0``, ``proj.1``, ...).
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Embed. Shape: ``x_BCS -> y_BCS`` at the reduced size."""
        return self.proj(x)


def build_stem(rank: int, kind: str, in_channels: int, out_channels: int) -> nn.Module:
    """Stage 1's embedding: stride 4 in space, 2 in time.

    The 3-D convolutional stem is that of the official light video models.
    """
    if kind == 'patch':
        kernel, stride, padding = extent(rank, 4, 3), extent(rank, 4, 2), extent(rank, 0, 1)
        return PatchEmbed(rank, in_channels, out_channels, kernel, stride, padding)
    conv, norm = CONV[rank], BATCH_NORM[rank]
    half = out_channels // 2
    return ConvEmbed(
        conv(in_channels, half, 3, extent(rank, 2, 1), 1),
        norm(half),
        nn.GELU(),
        conv(half, out_channels, 3, extent(rank, 2, 2), 1),
        norm(out_channels),
    )


def build_downsample(
    rank: int, kind: str, in_channels: int, out_channels: int, kernel_t: int
) -> nn.Module:
    """The embedding of stages 2 to 4: stride 2 in space, 1 in time."""
    stride, pad_t = extent(rank, 2, 1), kernel_t // 2
    if kind == 'patch':
        kernel, padding = extent(rank, 2, kernel_t), extent(rank, 0, pad_t)
        return PatchEmbed(rank, in_channels, out_channels, kernel, stride, padding)
    kernel, padding = extent(rank, 3, kernel_t), extent(rank, 1, pad_t)
    conv = CONV[rank](in_channels, out_channels, kernel, stride, padding)
    return ConvEmbed(conv, BATCH_NORM[rank](out_channels))


def depthwise(rank: int, channels: int, kernel: int) -> nn.Module:
    """Depthwise convolution with an odd cubic kernel, stride 1, size kept, with bias."""
    return CONV[rank](channels, channels, kernel, 1, kernel // 2, groups=channels)


class Mlp(nn.Module):
    """Two pointwise layers with an exact (erf) GELU between them.

    Args:
        fc1: First layer, C to hidden.
        fc2: Second layer, hidden to C.
    """

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x_BCS`` (convolutions) or ``x_BNC`` (linear layers)."""
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: drops the branch of whole samples, rescales those that stay.

    Args:
        rate: Probability of dropping, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training; identity otherwise."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f'rate={self.rate:.3f}'


def drop_path_rates(depths: tuple[int, ...], rate: float) -> list[list[float]]:
    """Linearly rising rates, 0 to ``rate``, over all blocks of all stages in order."""
    total = sum(depths)
    flat = [rate * i / max(total - 1, 1) for i in range(total)]
    starts = [sum(depths[:s]) for s in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def init_weights(module: nn.Module) -> None:
    """Official initialisation of one layer; convolutions and BatchNorm keep torch's own.

    Linear: truncated normal of std 0.02, zero bias. LayerNorm: one and zero.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def residual_scale(shape: tuple[int, ...], value: float | None) -> nn.Parameter | None:
    """Layer-scale parameter of ``shape`` filled with ``value``; None if there is none."""
    return None if value is None else nn.Parameter(torch.full(shape, value))
