# SPDX-License-Identifier: Apache-2.0
"""The truth that every fast operation is compared with: short, in float64, nothing fast imported.

Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``, ``C`` channels, ``N`` rows; in matrices
``H`` hidden units, ``O`` outputs.
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


def standardise(x_NC: Tensor, eps: float, axis: int) -> Tensor:
    """Zero mean and unit variance along an axis; gradients come from autograd.

    Args:
        x_NC: Rows of channels.
        eps: Added to the variance.
        axis: 1 as LayerNorm, 0 as BatchNorm.
    """
    away = x_NC.double() - x_NC.double().mean(axis, keepdim=True)
    return away / (away.square().mean(axis, keepdim=True) + eps).sqrt()


def norm_linear(
    x_NC: Tensor,
    gamma_C: Tensor,
    beta_C: Tensor,
    weight_OC: Tensor,
    bias_O: Tensor,
    eps: float,
    axis: int,
) -> Tensor:
    """A norm with its affine part, and a linear layer; gradients come from autograd.

    Args:
        x_NC: Rows of channels.
        gamma_C: Scale of the norm.
        beta_C: Shift of the norm.
        weight_OC: Matrix.
        bias_O: Its bias.
        eps: Added to the variance.
        axis: 1 for LayerNorm, 0 for BatchNorm.

    Returns:
        Float64 ``y_NO``.
    """
    normed = standardise(x_NC, eps, axis) * gamma_C.double() + beta_C.double()
    return normed @ weight_OC.double().t() + bias_O.double()
