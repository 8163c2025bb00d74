# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention. Source: Sense-X/UniFormer @52a0415, class ``Attention``."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.attention import attention


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection, no mask, no position bias.

    Args:
        dim: Channels C.
        head_dim: Channels of a head; scores are scaled by ``head_dim ** -0.5``.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the N tokens of each row. Shape: ``(B, N, C) -> (B, N, C)``."""
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: Tensor) -> Tensor:
        """What lies between the projections. Shape: ``(B, N, 3 C) -> (B, N, C)``."""
        # Parts of the last axis: the gradient of the whole is then one concatenation.
        q, k, v = qkv.chunk(3, dim=-1)
        y = attention(self.heads(q), self.heads(k), self.heads(v))
        return y.transpose(1, 2).flatten(2)

    def heads(self, x: Tensor) -> Tensor:
        """Shape: ``(B, N, C) -> (B, heads, N, head_dim)``."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
