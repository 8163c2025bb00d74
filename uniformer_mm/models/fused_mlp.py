# SPDX-License-Identifier: Apache-2.0
"""The MLP of a block as one formula, from the residual stream to the residual stream.

See ``fused.py``; ``H`` is the hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..ops import mlp, mlp_add, rows
from ..ops.mlp import implementation
from .fused import Gradients, once_differentiable, run
from .fused_norm import HALF, RUNNING, FusedNorm, as_rows, cast, weight_product
from .prepared import Matrix

_ops = torch.ops.uniformer_mm


class _AddNormMlp(torch.autograd.Function):
    """``x + factors * mlp(norm(x))``; without ``adds`` the stream as it is, and the branch."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSC: Tensor,
        copy_BSC: Tensor | None,
        factors_B: Tensor | None,
        w1: Tensor,
        b_H: Tensor,
        gamma_C: Tensor,
        beta_C: Tensor,
        w2: Tensor,
        b_O: Tensor,
        folded_HC: Tensor,
        folded_H: Tensor,
        cast_OH: Tensor,
        cast_O: Tensor,
        norm: FusedNorm,
        adds: bool,
        keeps: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        x_NC = as_rows(x_BSC)
        keeps_hidden = implementation(x_NC, folded_HC, cast_OH).KEEPS_HIDDEN
        if not (keeps or keeps_hidden) and adds and factors_B is None and norm.kind == RUNNING:
            y_NC = mlp_add(x_NC, folded_HC, folded_H, cast_OH, cast_O, x_NC)
            return y_NC.view_as(x_BSC), None
        xhat_NC, rstd = norm.standardise(x_NC, None if copy_BSC is None else as_rows(copy_BSC))
        h_NH = None
        if keeps_hidden:
            if keeps:
                h_NH = F.linear(xhat_NC, folded_HC, folded_H)
                gelu_NH = F.gelu(h_NH)
            else:
                gelu_NH = gelu_product(xhat_NC, folded_HC, folded_H)
            branch_NO = F.linear(gelu_NH, cast_OH, cast_O)
            del gelu_NH
        else:
            branch_NO = mlp(xhat_NC, folded_HC, folded_H, cast_OH, cast_O)
        ctx.norm, ctx.adds, ctx.dtype = norm, adds, x_BSC.dtype
        ctx.w2_shape, ctx.dtypes = w2.shape, (b_H.dtype, w2.dtype, b_O.dtype)
        ctx.save_for_backward(
            xhat_NC, rstd, h_NH, factors_B, folded_HC, folded_H, cast_OH, w1, gamma_C, beta_C
        )
        if not adds:
            return x_BSC, branch_NO.view_as(x_BSC)
        y_NC, _ = rows.implementation(x_NC).add_branch(x_NC, branch_NO, factors_B)
        return y_NC.view_as(x_BSC), None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, stream_BSC: Tensor | None, grad_BSO: Tensor | None) -> Gradients:
        xhat_NC, rstd, h_NH, factors_B, folded_HC, folded_H, cast_OH, w1, gamma_C, beta_C = (
            ctx.saved_tensors
        )
        stream_NC = None if stream_BSC is None else as_rows(stream_BSC)
        kernels = rows.implementation(xhat_NC)
        if ctx.adds:
            grad_NO, b_O_grad = rows.implementation(stream_NC).branch_grad(
                stream_NC, factors_B, xhat_NC.dtype
            )
            shape = stream_BSC.shape
        elif grad_BSO is None:
            return stream_BSC, *(None,) * 15
        else:
            grad_NO, shape = as_rows(grad_BSO).contiguous(), grad_BSO.shape
            b_O_grad = kernels.column_sum(grad_NO)
        b_H_dtype, w_OH_dtype, b_O_dtype = ctx.dtypes
        if h_NH is None:
            inputs = grad_NO, xhat_NC, folded_HC, folded_H, cast_OH
            w_HC_grad, b_H_grad, w_OH_grad, _ = _ops.mlp_weight_grad.default(*inputs, False, 'auto')
            grad_NC = _ops.mlp_input_grad.default(*inputs, 'auto')
        else:
            gelu_NH, grad_NH, b_H_grad = kernels.gelu_grad(grad_NO @ cast_OH, h_NH)
            w_OH_grad = weight_product(grad_NO, gelu_NH)
            del gelu_NH
            w_HC_grad = weight_product(grad_NH, xhat_NC)
            grad_NC = grad_NH @ folded_HC
            del grad_NH
        w_HC = w1.flatten(1)
        w_HC_grad, affine_grad = ctx.norm.fold_grad(w_HC_grad, b_H_grad, w_HC, gamma_C, beta_C)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = ctx.norm.grad(
                grad_NC, xhat_NC, rstd, gamma_C, affine_grad, stream_NC, ctx.dtype
            ).view(*shape)
        gamma_grad, beta_grad = cast(affine_grad, gamma_C.dtype).unbind()
        return (
            x_grad,
            None,
            None,
            w_HC_grad.view_as(w1),
            cast(b_H_grad, b_H_dtype),
            gamma_grad,
            beta_grad,
            cast(w_OH_grad, w_OH_dtype).view(*ctx.w2_shape),
            cast(b_O_grad, b_O_dtype),
            *(None,) * 7,
        )


def gelu_product(x_NC: Tensor, w_HC: Tensor, b_H: Tensor) -> Tensor:
    """``gelu(x @ w + b)`` where nothing is kept for gradients. Shape: ``x_NC -> y_NH``.

    DIFFERS: in half precision the GELU is the product's own, in its tanh form. It takes sums that
    have not been rounded yet, so that its result is nearer to the exact GELU of the exact sums than
    the exact GELU of rounded sums is (docs/performance.md), and it costs no pass over the map. So
    it is where cuBLASLt takes the product; torch rounds first where it does not.
    """
    if x_NC.dtype in HALF:
        return torch._addmm_activation(b_H, x_NC, w_HC.t(), use_gelu=True)
    return torch.ops.aten.gelu_(torch.addmm(b_H, x_NC, w_HC.t()))


def reads_stream(first: Matrix, second: Matrix) -> bool:
    """Whether inference takes the residual stream as it is, so that no copy of it is of use."""
    if torch.is_grad_enabled():
        return False
    return not implementation(first.weight, first.weight, second.weight).KEEPS_HIDDEN


def norm_mlp(
    norm: nn.Module,
    first: Matrix,
    second: Matrix,
    x_BSC: Tensor,
    copy_BSC: Tensor | None,
    factors: Tensor | None = None,
    adds: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """``x + factors * fc2(gelu(fc1(norm(x))))``, or its parts.

    Args:
        norm: A LayerNorm or BatchNorm.
        first: It and ``fc1``.
        second: ``fc2``.
        x_BSC: The residual stream.
        copy_BSC: The stream in the dtype of the products, if it exists.
        factors: One for each sample, ``(B, 1, ..., 1)``, or None.
        adds: Whether to add.

    Returns:
        The sum and None, or the stream as it is and the branch.
    """
    return run(
        _AddNormMlp,
        x_BSC,
        copy_BSC,
        None if factors is None else factors.flatten(),
        *first.parameters,
        *second.parameters,
        first.weight,
        first.bias,
        second.weight,
        second.bias,
        FusedNorm(norm, first.kind, first.weight.dtype),
        adds,
        torch.is_grad_enabled(),
    )
