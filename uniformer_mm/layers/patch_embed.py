# SPDX-License-Identifier: Apache-2.0
"""Patch embeddings: the stem and the downsampling between stages.

Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer.py`` (``PatchEmbed``,
``head_embedding``, ``middle_embedding``), ``video_classification/slowfast/models/uniformer.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from .conv import CONV, extent
from .norm import BATCH_NORM, PATCH_NORM_EPS
from .tokens import channels_last, to_map, to_tokens


class PatchEmbed(nn.Module):
    """Non-overlapping convolution (kernel = stride in space) followed by LayerNorm with eps 1e-5.

    The spatial size is floored. In the 3-D stem time is halved by a kernel of 3 frames.

    Args:
        conv: The convolution.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(conv.out_channels, eps=PATCH_NORM_EPS)
        self.proj = conv
        self.ndim = len(conv.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed. Shape: ``(B, C, *S) -> (B, D, *s)`` at the reduced size, channels-last memory."""
        x = self.proj(channels_last(x, self.ndim))
        return to_map(self.norm(to_tokens(x, self.ndim)), x.shape, self.ndim)


class ConvEmbed(nn.Module):
    """Overlapping 3x3 convolutions with BatchNorm.

    Args:
        layers: The convolutions, norms and activations in order; their positions are part of
            the official state-dict keys (``proj.0``, ``proj.1``, ...).
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(*layers)
        self.ndim = len(layers[0].kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed. Shape: ``(B, C, *S) -> (B, D, *s)`` at the reduced size."""
        return self.proj(channels_last(x, self.ndim))


def build_stem(ndim: int, kind: str, in_channels: int, out_channels: int) -> nn.Module:
    """Stage 1's embedding: stride 4 in space, 2 in time.

    The 3-D convolutional stem is that of the official lightweight video models.
    """
    conv, norm, half = CONV[ndim], BATCH_NORM[ndim], out_channels // 2
    if kind == 'patch':
        kernel, stride, padding = extent(ndim, 4, 3), extent(ndim, 4, 2), extent(ndim, 0, 1)
        return PatchEmbed(conv(in_channels, out_channels, kernel, stride, padding))
    return ConvEmbed(
        conv(in_channels, half, 3, extent(ndim, 2, 1), 1),
        norm(half),
        nn.GELU(),
        conv(half, out_channels, 3, extent(ndim, 2, 2), 1),
        norm(out_channels),
    )


def build_downsample(
    ndim: int, kind: str, in_channels: int, out_channels: int, kernel_t: int
) -> nn.Module:
    """The embedding of stages 2 to 4: stride 2 in space, 1 in time."""
    conv, stride, pad_t = CONV[ndim], extent(ndim, 2, 1), kernel_t // 2
    if kind == 'patch':
        kernel, padding = extent(ndim, 2, kernel_t), extent(ndim, 0, pad_t)
        return PatchEmbed(conv(in_channels, out_channels, kernel, stride, padding))
    kernel, padding = extent(ndim, 3, kernel_t), extent(ndim, 1, pad_t)
    return ConvEmbed(
        conv(in_channels, out_channels, kernel, stride, padding), BATCH_NORM[ndim](out_channels)
    )
