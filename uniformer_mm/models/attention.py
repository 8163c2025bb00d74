# SPDX-License-Identifier: Apache-2.0
"""Self-attention over tokens and the ways stage 3 groups tokens.

Shapes: ``B`` batch, ``T H W`` frames, rows, columns (``T`` = 1 for images), ``N`` tokens, ``C``
channels, ``M`` heads, ``D`` head width, ``G`` windows, ``w`` window side.
Source: Sense-X/UniFormer @52a0415 ``object_detection/mmdet/models/backbones/uniformer.py``
(windows), ``video_classification/slowfast/models/uniformer.py`` (divided).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .functional import is_compiling
from .fused import folded_linear
from .layers import Linear
from .prepared import Matrix


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection, no mask, no position bias.

    Args:
        dim: Channels C.
        head_dim: Channels of a head D; scores are scaled by ``D ** -0.5``.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Attend among the N tokens of each row. Shape: ``x_BNC -> y_BNC``."""
        return self.proj(self.attend(self.qkv(x_BNC)))

    def attend(self, qkv_BNK: Tensor) -> Tensor:
        """What lies between the projections; K is 3 C. Shape: ``qkv_BNK -> y_BNC``."""
        B, N, K = qkv_BNK.shape
        # Parts of the last axis: the gradient of the whole is then one concatenation.
        q_BMND, k_BMND, v_BMND = (
            part_BNC.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part_BNC in qkv_BNK.chunk(3, dim=-1)
        )
        y_BMND = F.scaled_dot_product_attention(q_BMND, k_BMND, v_BMND, scale=self.head_dim**-0.5)
        return y_BMND.transpose(1, 2).reshape(B, N, K // 3)


class FoldedAttention:
    """Attention without its last projection, on a standardised map.

    Args:
        attention: The attention.
        matrix: Its first projection, into which the norm before it is folded.
    """

    def __init__(self, attention: Attention, matrix: Matrix) -> None:
        self.attention = attention
        self.matrix = matrix

    def __call__(self, x_BNC: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attend among the N tokens of each row. Shape: ``x_BNC -> y_BNC``.

        Args:
            x_BNC: Tokens.
            padding: Which of the ``B * N`` tokens are zeros that pad the map after its norm.
        """
        qkv_BNK = folded_linear(self.matrix, x_BNC, padding)
        return self.attention.attend(qkv_BNK)


@functools.lru_cache(maxsize=64)
def padding_tokens(
    batch: int, size: tuple[int, int, int], window_size: int, device: torch.device
) -> Tensor:
    """Which tokens of all windows pad the map, counted through; remembered for each size."""
    T, H, W = size
    inside_BTHWC = torch.ones(batch, T, H, W, 1, dtype=torch.bool)
    inside_GNC, _ = split_windows(inside_BTHWC, window_size)
    return (~inside_GNC.flatten()).nonzero()[:, 0].to(device)


def attend_globally(attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
    """Attention among all tokens of a sample. Shape: ``x_BTHWC -> y_BTHWC``."""
    shape = x_BTHWC.shape
    return attention(x_BTHWC.flatten(1, 3)).reshape(shape)


def split_windows(x_BTHWC: Tensor, window_size: int) -> tuple[Tensor, tuple[int, ...]]:
    """Windows of a map padded with zeros at the bottom and right, each over all frames.

    Returns:
        ``x_GNC`` and the split map's shape ``(B, rows, columns, T, w, w, C)``.
    """
    B, T, H, W, C = x_BTHWC.shape
    w = window_size
    pad_h, pad_w = -H % w, -W % w
    # The compiler does not look at the sizes, so that one program serves all of them.
    if is_compiling() or pad_h or pad_w:
        x_BTHWC = F.pad(x_BTHWC, (0, 0, 0, pad_w, 0, pad_h))
    rows, cols = (H + pad_h) // w, (W + pad_w) // w
    x_BTrwcwC = x_BTHWC.reshape(B, T, rows, w, cols, w, C)
    x_GNC = x_BTrwcwC.permute(0, 2, 4, 1, 3, 5, 6).reshape(B * rows * cols, T * w * w, C)
    return x_GNC, (B, rows, cols, T, w, w, C)


def attend_in_windows(
    attention: Attention | FoldedAttention, x_BTHWC: Tensor, window_size: int
) -> Tensor:
    """Attention inside square windows, each over all frames. Shape: ``x_BTHWC -> y_BTHWC``.

    The map is padded with zeros at the bottom and right to whole windows. Padding is attended to,
    as in the official code: masking it changes the outputs.
    """
    B, T, H, W, C = x_BTHWC.shape
    x_GNC, split = split_windows(x_BTHWC, window_size)
    if isinstance(attention, FoldedAttention) and (H % window_size or W % window_size):
        y_GNC = attention(x_GNC, padding_tokens(B, (T, H, W), window_size, x_BTHWC.device))
    else:
        y_GNC = attention(x_GNC)
    _, rows, cols, _, w, _, _ = split
    y_BTHWC = y_GNC.reshape(split).permute(0, 3, 1, 4, 2, 5, 6).reshape(B, T, rows * w, cols * w, C)
    if is_compiling():
        # The strides of a slice depend on whether anything was cut, which would make two programs.
        kept_h, kept_w = (torch.arange(n, device=y_BTHWC.device) for n in (H, W))
        return y_BTHWC.index_select(2, kept_h).index_select(3, kept_w)
    return y_BTHWC[:, :, :H, :W]


def attend_over_time(attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
    """Attention among the frames of each pixel. Shape: ``x_BTHWC -> y_BTHWC``."""
    B, T, H, W, C = x_BTHWC.shape
    x_GTC = x_BTHWC.permute(0, 2, 3, 1, 4).reshape(B * H * W, T, C)
    return attention(x_GTC).reshape(B, H, W, T, C).permute(0, 3, 1, 2, 4)


def attend_over_space(attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
    """Attention among the pixels of each frame. Shape: ``x_BTHWC -> y_BTHWC``."""
    B, T, H, W, C = x_BTHWC.shape
    return attention(x_BTHWC.reshape(B * T, H * W, C)).reshape(B, T, H, W, C)
