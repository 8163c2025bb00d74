# SPDX-License-Identifier: Apache-2.0
"""Self-attention over tokens and the ways stage 3 groups tokens.

Shapes: ``B`` batch, ``T H W`` frames, rows, columns (``T`` = 1 for images), ``N`` tokens, ``C``
channels, ``M`` heads, ``D`` head width, ``G`` windows, ``w`` window side.
Source: Sense-X/UniFormer @52a0415 ``object_detection/mmdet/models/backbones/uniformer.py``
(windows), ``video_classification/slowfast/models/uniformer.py`` (divided).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .fused import folded_linear
from .layers import Linear
from .prepared import Matrix
from .windows import Windows


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
        heads = K // 3 // self.head_dim
        # Parts of the last axis: the gradient of the whole is then one concatenation.
        q_BMND, k_BMND, v_BMND = (
            part_BNC.view(B, N, heads, self.head_dim).transpose(1, 2)
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


def attend_globally(attention: Callable[[Tensor], Tensor], x_BTHWC: Tensor) -> Tensor:
    """Attention among all tokens of a sample. Shape: ``x_BTHWC -> y_BTHWC``."""
    y_BNC = attention(x_BTHWC.flatten(1, 3))
    return y_BNC.reshape(*x_BTHWC.shape[:-1], y_BNC.shape[-1])


def attend_in_windows(
    attention: Attention | FoldedAttention, x_BTHWC: Tensor, window_size: int
) -> Tensor:
    """Attention inside square windows, each over all frames. Shape: ``x_BTHWC -> y_BTHWC``.

    The map is padded with zeros at the bottom and right to whole windows. Padding is attended to,
    as in the official code: masking it changes the outputs.
    """
    windows = Windows(x_BTHWC, window_size)
    x_GNC = windows.split(x_BTHWC)
    if isinstance(attention, FoldedAttention) and windows.rows is not None:
        y_GNC = attention(x_GNC, windows.rows.padding)
    else:
        y_GNC = attention(x_GNC)
    return windows.join(y_GNC)


def attend_over_time(attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
    """Attention among the frames of each pixel. Shape: ``x_BTHWC -> y_BTHWC``."""
    B, T, H, W, C = x_BTHWC.shape
    x_GTC = x_BTHWC.permute(0, 2, 3, 1, 4).reshape(B * H * W, T, C)
    return attention(x_GTC).reshape(B, H, W, T, C).permute(0, 3, 1, 2, 4)


def attend_over_space(attention: Attention | FoldedAttention, x_BTHWC: Tensor) -> Tensor:
    """Attention among the pixels of each frame. Shape: ``x_BTHWC -> y_BTHWC``."""
    B, T, H, W, C = x_BTHWC.shape
    return attention(x_BTHWC.reshape(B * T, H * W, C)).reshape(B, T, H, W, C)
