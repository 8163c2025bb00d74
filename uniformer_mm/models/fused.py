# SPDX-License-Identifier: Apache-2.0
"""The layers of a block as whole formulas, for eager mode where Triton kernels run.

Each formula spans a norm, the matrix product after it or before the residual sum, and what lies
between, so that a training step keeps one map for each of them and passes over each map as seldom
as possible:

* A norm is standardised without its affine part, which is folded into the product after it. The
  standardised map is all that is kept; the gradient of the norm is added to that of the residual
  stream, which passes through the formula, in one kernel.
* BatchNorm's gradient needs two sums over all rows, which are the gradients of its scale and shift
  up to a factor, so they come out of the weight gradient and cost no pass.
* The GELU is computed again in the backward pass (``fused_mlp.py``).

A second derivative is not defined. Shapes as in ``functional.py``; ``N`` rows of a map.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable as refusing
from torch.nn import functional as F  # noqa: N812

from ..ops import rows
from ..ops.dispatch import resolve
from .fused_norm import LAYER, FusedNorm, as_rows, cast, product_dtype, weight_product
from .prepared import Matrix, Taps

Gradients = tuple[Tensor | None, ...]


class _NoContext:
    """Stands for what a formula keeps where no gradient is wanted."""

    def __setattr__(self, name: str, value: object) -> None:
        """Forget."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Forget."""

    mark_non_differentiable = set_materialize_grads = save_for_backward


_NO_CONTEXT = _NoContext()


def once_differentiable(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """torch's decorator of this name; nearly free where no second derivative is asked for."""
    loud = refusing(backward)

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor | None) -> Gradients:
        return (loud if torch.is_grad_enabled() else backward)(ctx, *grads)

    return wrapper


def run(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a formula; where no gradient is recorded without autograd's share of the host time."""
    if torch.is_grad_enabled():
        return function.apply(*arguments)
    return function.forward(_NO_CONTEXT, *arguments)


class _Depthwise(torch.autograd.Function):
    """``conv(x)``, or ``x + conv(x)`` in the stream's dtype keeping ``x`` in the products'."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSC: Tensor,
        taps_KC: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: bool,
        dtype: torch.dtype,
        copy: str,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        kernel = tuple(weight.shape[2:])
        ctx.kernel, ctx.residual = kernel, residual
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, bias.dtype
        module = resolve('depthwise_conv', 'auto', x_BSC.device, x_BSC.dtype, kernel)
        x_BSC = x_BSC.contiguous()
        taps = {'taps_KC': taps_KC}
        if copy and dtype != x_BSC.dtype:
            y_BSC, copy_BSC = module.forward_and_copy(x_BSC, weight, bias, copy, dtype, **taps)
        else:
            y_BSC, copy_BSC = module.forward(x_BSC, weight, bias, residual, **taps), None
        kept_BSC = copy_BSC if copy == 'x' and copy_BSC is not None else x_BSC
        ctx.save_for_backward(kept_BSC, weight, taps_KC)
        if copy != 'y' or copy_BSC is None:
            return y_BSC, None
        ctx.mark_non_differentiable(copy_BSC)
        return y_BSC, copy_BSC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSC: Tensor, _: Tensor | None) -> Gradients:
        x_BSC, weight, taps_KC = ctx.saved_tensors
        needs_x, _, *needs_parameters = ctx.needs_input_grad[:4]
        module = resolve('depthwise_conv', 'auto', x_BSC.device, grad_BSC.dtype, ctx.kernel)
        x_grad = weight_grad = bias_grad = None
        if needs_x:
            x_grad = module.input_grad(grad_BSC, weight, ctx.residual, taps_KC=taps_KC)
        if any(needs_parameters):
            weight_grad, bias_grad = module.weight_grad(grad_BSC, x_BSC, ctx.kernel)
            weight_grad = cast(weight_grad, ctx.weight_dtype)
            bias_grad = cast(bias_grad, ctx.bias_dtype)
        return x_grad, None, weight_grad, bias_grad, None, None, None


class _LayerStandardise(torch.autograd.Function):
    """LayerNorm without its affine part, for a product that other maps than its input reach."""

    @staticmethod
    def forward(ctx: Any, x_BSC: Tensor, norm: FusedNorm) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        xhat_NC, rstd_N = norm.standardise(as_rows(x_BSC), None)
        xhat_BSC = xhat_NC.view_as(x_BSC)
        ctx.norm, ctx.dtype = norm, x_BSC.dtype
        ctx.save_for_backward(xhat_BSC, rstd_N)
        return x_BSC, xhat_BSC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, stream_BSC: Tensor | None, grad_BSC: Tensor | None) -> Gradients:
        if grad_BSC is None:
            return stream_BSC, None
        xhat_BSC, rstd_N = ctx.saved_tensors
        stream_NC = None if stream_BSC is None else as_rows(stream_BSC)
        x_grad = ctx.norm.grad(
            as_rows(grad_BSC), as_rows(xhat_BSC), rstd_N, None, None, stream_NC, ctx.dtype
        )
        return x_grad.view_as(xhat_BSC), None


class _FoldedLinear(torch.autograd.Function):
    """A linear layer on a standardised map, or without a norm; ``padding`` are rows of zeros.

    Zeros pad the map after the norm, so the norm's shift does not reach them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_BSC: Tensor,
        weight: Tensor,
        bias_O: Tensor,
        gamma_C: Tensor | None,
        beta_C: Tensor | None,
        folded_OC: Tensor,
        folded_O: Tensor,
        padding: Tensor | None,
    ) -> Tensor:
        dtype = folded_OC.dtype
        x_NC = cast(as_rows(x_BSC), dtype)
        y_NO = F.linear(x_NC, folded_OC, folded_O)
        if padding is not None:
            y_NO[padding] = bias_O.to(dtype)
        ctx.shape, ctx.dtype, ctx.bias_dtype = x_BSC.shape, x_BSC.dtype, bias_O.dtype
        ctx.save_for_backward(x_NC, folded_OC, weight, gamma_C, beta_C, padding)
        return y_NO.view(*x_BSC.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSO: Tensor) -> Gradients:
        x_NC, folded_OC, weight, gamma_C, beta_C, padding = ctx.saved_tensors
        needs_x, *needs_parameters = ctx.needs_input_grad[:5]
        grad_NO = as_rows(grad_BSO).contiguous()
        x_grad = weight_grad = bias_grad = gamma_grad = beta_grad = None
        if any(needs_parameters):
            kernels = rows.implementation(grad_NO)
            bias_grad = kernels.column_sum(grad_NO)
            weight_grad = weight_product(grad_NO, x_NC)
            if gamma_C is None:
                weight_grad = cast(weight_grad, weight.dtype)
            else:
                shifted = bias_grad
                if padding is not None:
                    shifted = bias_grad - kernels.column_sum(grad_NO[padding])
                fold_grad = rows.implementation(weight).fold_grad
                weight_grad, affine_grad = fold_grad(
                    weight_grad, shifted, weight.flatten(1), gamma_C, beta_C
                )
                gamma_grad, beta_grad = cast(affine_grad, gamma_C.dtype).unbind()
            weight_grad = weight_grad.view_as(weight)
            bias_grad = cast(bias_grad, ctx.bias_dtype)
        if needs_x:
            x_grad = cast(grad_NO @ folded_OC, ctx.dtype).view(*ctx.shape)
        return x_grad, weight_grad, bias_grad, gamma_grad, beta_grad, None, None, None


class _NormLinear(torch.autograd.Function):
    """The residual stream as it is, and a linear layer on its norm."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSC: Tensor,
        copy_BSC: Tensor | None,
        weight: Tensor,
        bias_O: Tensor,
        gamma_C: Tensor,
        beta_C: Tensor,
        folded_OC: Tensor,
        folded_O: Tensor,
        norm: FusedNorm,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        copy_NC = None if copy_BSC is None else as_rows(copy_BSC)
        xhat_NC, rstd = norm.standardise(as_rows(x_BSC), copy_NC)
        y_NO = F.linear(xhat_NC, folded_OC, folded_O)
        ctx.norm, ctx.dtype, ctx.bias_dtype = norm, x_BSC.dtype, bias_O.dtype
        ctx.save_for_backward(xhat_NC, rstd, folded_OC, weight, gamma_C, beta_C)
        return x_BSC, y_NO.view(*x_BSC.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, stream_BSC: Tensor | None, grad_BSO: Tensor | None) -> Gradients:
        if grad_BSO is None:
            return stream_BSC, *(None,) * 8
        xhat_NC, rstd, folded_OC, weight, gamma_C, beta_C = ctx.saved_tensors
        grad_NO = as_rows(grad_BSO).contiguous()
        bias_grad = rows.implementation(grad_NO).column_sum(grad_NO)
        weight_grad, affine_grad = ctx.norm.fold_grad(
            weight_product(grad_NO, xhat_NC), bias_grad, weight.flatten(1), gamma_C, beta_C
        )
        weight_grad = weight_grad.view_as(weight)
        x_grad = None
        if ctx.needs_input_grad[0]:
            stream_NC = None if stream_BSC is None else as_rows(stream_BSC)
            x_grad = ctx.norm.grad(
                grad_NO @ folded_OC, xhat_NC, rstd, gamma_C, affine_grad, stream_NC, ctx.dtype
            ).view(*grad_BSO.shape[:-1], -1)
        gamma_grad, beta_grad = cast(affine_grad, gamma_C.dtype).unbind()
        bias_grad = cast(bias_grad, ctx.bias_dtype)
        return x_grad, None, weight_grad, bias_grad, gamma_grad, beta_grad, None, None, None


class _AddLinear(torch.autograd.Function):
    """``x + factors * linear(a)`` and, if asked for, a copy of it in the dtype of the products."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSO: Tensor,
        a_BSI: Tensor,
        factors_B: Tensor | None,
        weight: Tensor,
        bias_O: Tensor,
        cast_OI: Tensor,
        cast_O: Tensor,
        copies: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        dtype = cast_OI.dtype
        a_NI = cast(as_rows(a_BSI), dtype)
        branch_NO = F.linear(a_NI, cast_OI, cast_O)
        add_branch = rows.implementation(x_BSO).add_branch
        y_NO, copy_NO = add_branch(as_rows(x_BSO), branch_NO, factors_B, dtype if copies else None)
        ctx.shape, ctx.dtype = a_BSI.shape, a_BSI.dtype
        ctx.weight_shape = weight.shape
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, bias_O.dtype
        ctx.save_for_backward(a_NI, factors_B, cast_OI)
        if copy_NO is None:
            return y_NO.view_as(x_BSO), None
        copy_BSO = copy_NO.view_as(x_BSO)
        ctx.mark_non_differentiable(copy_BSO)
        return y_NO.view_as(x_BSO), copy_BSO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSO: Tensor, _: Tensor | None) -> Gradients:
        a_NI, factors_B, cast_OI = ctx.saved_tensors
        grad_NO = as_rows(grad_BSO)
        branch_grad = rows.implementation(grad_NO).branch_grad
        branch_NO, bias_grad = branch_grad(grad_NO, factors_B, a_NI.dtype)
        weight_grad = a_grad = None
        if ctx.needs_input_grad[1]:
            a_grad = cast(branch_NO @ cast_OI, ctx.dtype).view(*ctx.shape)
        if ctx.needs_input_grad[3]:
            weight_grad = cast(weight_product(branch_NO, a_NI), ctx.weight_dtype)
            weight_grad = weight_grad.view(*ctx.weight_shape)
        bias_grad = cast(bias_grad, ctx.bias_dtype)
        return grad_BSO, a_grad, None, weight_grad, bias_grad, None, None, None


def add_depthwise(conv: Taps, x_BSC: Tensor, copies: bool) -> tuple[Tensor, Tensor | None]:
    """``x + conv(x)`` for a depthwise convolution.

    Args:
        conv: The convolution.
        x_BSC: The residual stream.
        copies: Whether the result is also wanted in the dtype of the products.

    Returns:
        The sum in the dtype of ``x_BSC``, and the copy or None.
    """
    copy = 'y' if copies else ''
    if torch.is_grad_enabled() and conv.weight.requires_grad:
        copy = 'x'
    taps_KC, weight, bias, dtype = conv
    return run(_Depthwise, x_BSC, taps_KC, weight, bias, True, dtype, copy)


def depthwise(conv: Taps, x_BSC: Tensor) -> Tensor:
    """``conv(x)`` for a depthwise convolution in the dtype of the products."""
    taps_KC, weight, bias, dtype = conv
    return run(_Depthwise, cast(x_BSC, dtype), taps_KC, weight, bias, False, dtype, '')[0]


def layer_standardise(norm: nn.Module, x_BSC: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The residual stream as it is, and its LayerNorm without the affine part in ``dtype``."""
    return run(_LayerStandardise, x_BSC, FusedNorm(norm, LAYER, dtype))


def linear(x_BSI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """A product with bias in the dtype of the products. Shape: ``x_BSI -> y_BSO``."""
    fold = rows.implementation(weight_OI).fold
    cast = fold(weight_OI.detach(), bias_O.detach(), None, None, product_dtype(x_BSI))
    return run(_FoldedLinear, x_BSI, weight_OI, bias_O, None, None, *cast, None)


def folded_linear(matrix: Matrix, x_BSI: Tensor, padding: Tensor | None = None) -> Tensor:
    """A linear layer on a map that its norm, if it has one, has standardised.

    Args:
        matrix: The layer and the norm.
        x_BSI: The map.
        padding: Rows of the map that are zeros, which the affine part does not reach.

    Returns:
        ``y_BSO``.
    """
    no_norm = (None, None) if matrix.kind is None else ()
    parameters = *matrix.parameters, *no_norm
    return run(_FoldedLinear, x_BSI, *parameters, matrix.weight, matrix.bias, padding)


def norm_linear(
    norm: nn.Module, matrix: Matrix, x_BSI: Tensor, copy_BSI: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The residual stream as it is, and ``layer(norm(x))``.

    Args:
        norm: A LayerNorm or BatchNorm.
        matrix: The layer and the norm.
        x_BSI: The stream.
        copy_BSI: The stream in the dtype of the products, if it exists.
    """
    return run(
        _NormLinear,
        x_BSI,
        copy_BSI,
        *matrix.parameters,
        matrix.weight,
        matrix.bias,
        FusedNorm(norm, matrix.kind, matrix.weight.dtype),
    )


def add_linear(
    matrix: Matrix,
    x_BSO: Tensor,
    a_BSI: Tensor,
    factors: Tensor | None,
    copies: bool,
) -> tuple[Tensor, Tensor | None]:
    """``x + factors * layer(a)``.

    Args:
        matrix: The layer.
        x_BSO: The residual stream.
        a_BSI: Input of the layer.
        factors: One for each sample, ``(B, 1, ..., 1)``, or None.
        copies: Whether the result is also wanted in the dtype of the products.

    Returns:
        The sum in the dtype of ``x_BSO``, and the copy or None.
    """
    factors_B = None if factors is None else factors.flatten()
    parameters = *matrix.parameters, matrix.weight, matrix.bias
    copies = copies and matrix.weight.dtype != x_BSO.dtype
    return run(_AddLinear, x_BSO, a_BSI, factors_B, *parameters, copies)
