# SPDX-License-Identifier: Apache-2.0
"""The matrix products of fused attention, told to the counters of operations that miss them.

Counters know layers or operators. ``scaled_dot_product_attention`` has no entry in the tables of
fvcore, mmengine, thop and ptflops, nor has its form on a CPU in PyTorch's own: they count 0 for it.
Each module here adds the entries to the table of one counter, as that package has its users do, and
is imported right after it (``after_import`` in the package's ``__init__``). They count in its unit:
PyTorch's counter two operations for a multiply-add, the others one.

torchinfo counts layers only, whatever the network; its number is without the attention products.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn


def attention_macs(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Multiply-adds of ``softmax(q @ k.T) @ v``: both matrix products, without the softmax.

    Args:
        query: Shape ``(*B, N, D)``, the heads among ``B``.
        key: Shape ``(*B, L, D)``.
        value: Shape ``(*B, L, E)``.

    Returns:
        ``B N L (D + E)``.
    """
    *batch, tokens, width = query
    return prod(batch) * tokens * key[-2] * (width + value[-1])


def attention_layer_macs(attention: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one of our attention layers, its linear layers included.

    For counters that look no deeper into a layer which they have an entry for.

    Args:
        attention: The layer; parameters with two axes are matrices that every token is multiplied
            with.
        x: Its input ``(B, N, C)``.
    """
    B, N, C = x.shape
    matrices = sum(p.numel() for p in attention.parameters() if p.ndim == 2)
    # Queries, keys and values have C channels over all heads.
    return B * N * matrices + attention_macs((B, N, C), (B, N, C), (B, N, C))
