# SPDX-License-Identifier: Apache-2.0
"""Scale and shift of a map as part of the matrix that follows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold(weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and bias that first scale and shift their input: ``W (s x + t) + b``.

    Differentiable as often as PyTorch is, with respect to all four. Results are at least float32:
    cast them where they are used, or gradients are rounded.

    Args:
        weight: ``(O, C)``, or the weight of a 1x1 convolution.
        bias: ``(O,)``.
        scale: ``(C,)``.
        shift: ``(C,)``.

    Returns:
        ``W diag(s)`` of shape ``(O, C)`` and ``b + W t``.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    matrix = weight.flatten(1).to(dtype)
    return matrix * scale, bias.to(dtype) + matrix @ shift.to(dtype)


def running_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm in evaluation: what its running statistics make of it.

    The statistics are copied where gradients are recorded: a later pass in training may update them
    before the backward pass of this one.
    """
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    copies = torch.is_grad_enabled()
    mean, var = (x.to(dtype, copy=copies) for x in (norm.running_mean, norm.running_var))
    scale = norm.weight.to(dtype) * torch.rsqrt(var + norm.eps)
    return scale, norm.bias.to(dtype) - mean * scale
