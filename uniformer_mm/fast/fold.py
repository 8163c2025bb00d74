# SPDX-License-Identifier: Apache-2.0
"""Scale and shift of a map as part of the matrix beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import rows


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
    # Not a matmul, which autocast would round.
    return matrix * scale, bias.to(dtype) + (matrix * shift).sum(1)


def fold_grad(
    matrix_grad: Tensor, bias_grad: Tensor, weight: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`fold`; that of the bias is ``bias_grad`` itself.

    Args:
        matrix_grad: Gradient of the folded matrix ``(O, C)``.
        bias_grad: Gradient of the folded bias ``(O,)``.
        weight: As for :func:`fold`.
        scale: As for :func:`fold`.
        shift: As for :func:`fold`.

    Returns:
        The gradient of the weight in its shape, and those of scale and shift as ``(2, C)``.
    """
    kernels = rows.implementation(weight)
    weight_grad, affine_grad = kernels.fold_grad(
        matrix_grad, bias_grad, weight.flatten(1), scale, shift
    )
    return weight_grad.view(weight.shape), affine_grad


def scale_outputs(weight: Tensor, bias: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and bias whose outputs are scaled: ``gamma (W x + b)``.

    Differentiable as :func:`fold` is.

    Args:
        weight: ``(O, C)``, or the weight of a 1x1 convolution.
        bias: ``(O,)``.
        gamma: ``(O,)``, also with axes of length 1.

    Returns:
        ``diag(gamma) W`` of shape ``(O, C)`` and ``gamma b``.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    gamma = gamma.flatten().to(dtype)
    return weight.flatten(1) * gamma[:, None], bias * gamma


def scale_outputs_grad(
    matrix_grad: Tensor, bias_grad: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`scale_outputs` for weight, bias and gamma, in their shapes."""
    matrix = weight.flatten(1)
    gamma_grad = (matrix_grad * matrix).sum(1) + bias_grad * bias
    scale = gamma.flatten()
    weight_grad = (matrix_grad * scale[:, None]).view(weight.shape)
    return weight_grad, bias_grad * scale, gamma_grad.view(gamma.shape)


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
