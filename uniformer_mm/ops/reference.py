# SPDX-License-Identifier: Apache-2.0
"""The truth that every fast operation is compared with: short, in float64, nothing fast imported.

Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``, ``C`` channels; in matrices ``H`` hidden
units, ``O`` outputs.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def depthwise_conv(
    x_BSC: Tensor, weight: Tensor, bias: Tensor | None = None, *, residual: bool = False
) -> Tensor:
    """Depthwise convolution as a sum of shifted products; gradients come from autograd.

    Args:
        x_BSC: Input, ``(B, H, W, C)`` or ``(B, T, H, W, C)``.
        weight: Official layout ``(C, 1, *k)``, odd k per axis.
        bias: ``(C,)`` or None.
        residual: Whether the input is added to the result.

    Returns:
        Float64 result in the shape of the input, zeros assumed outside of it.
    """
    x = x_BSC.double()
    kernel, size = weight.shape[2:], x.shape[1:-1]
    pads = [pad for k in reversed(kernel) for pad in (k // 2, k // 2)]
    padded = F.pad(x, [0, 0, *pads])
    y = x if residual else torch.zeros_like(x)
    for tap in itertools.product(*(range(k) for k in kernel)):
        window = (slice(start, start + n) for start, n in zip(tap, size, strict=True))
        y = y + padded[(slice(None), *window)] * weight.double()[(slice(None), 0, *tap)]
    return y if bias is None else y + bias.double()


def mlp(x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """Two products with an exact GELU between; gradients come from autograd.

    Args:
        x_BSC: ``(..., C)``.
        w_HC: First matrix.
        b_H: Its bias.
        w_OH: Second matrix.
        b_O: Its bias.

    Returns:
        Float64 result ``(..., O)``.
    """
    h = x_BSC.double() @ w_HC.double().t() + b_H.double()
    kept = (1 + torch.erf(h * 0.5**0.5)) / 2
    return (h * kept) @ w_OH.double().t() + b_O.double()
