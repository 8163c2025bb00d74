# SPDX-License-Identifier: Apache-2.0
"""Patch embeddings and norms between stages, for eager mode where Triton kernels run.

See ``fused.py``. A map becomes patches and takes the dtype of the product in one copy, and the norm
after the product writes the residual stream in its own dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..ops import rows
from .functional import patch_view
from .functional import patches as plain_patches
from .fused import Gradients, run
from .fused_norm import as_rows, product_dtype


class _LayerNorm(torch.autograd.Function):
    """A LayerNorm that reads one dtype and writes another."""

    @staticmethod
    def forward(
        ctx: Any, x_BSC: Tensor, gamma_C: Tensor, beta_C: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        x_NC = as_rows(x_BSC)
        kernels = rows.implementation(x_NC)
        y_NC, mean_N, rstd_N = kernels.layer_norm(x_NC, gamma_C, beta_C, eps, dtype)
        ctx.save_for_backward(x_NC, mean_N, rstd_N, gamma_C)
        return y_NC.view(x_BSC.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSC: Tensor) -> Gradients:
        x_NC, mean_N, rstd_N, gamma_C = ctx.saved_tensors
        layer_norm_grad = rows.implementation(x_NC).layer_norm_grad
        inputs = as_rows(grad_BSC), x_NC, mean_N, rstd_N, gamma_C
        x_grad_NC, affine_grad_2C = layer_norm_grad(*inputs)
        gamma_grad, beta_grad = affine_grad_2C.to(gamma_C.dtype)
        return x_grad_NC.view(grad_BSC.shape), gamma_grad, beta_grad, None, None


class _Patches(torch.autograd.Function):
    """Patches that do not overlap, in another dtype."""

    @staticmethod
    def forward(ctx: Any, x_BSC: Tensor, kernel: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.kernel, ctx.dtype = x_BSC.shape, kernel, x_BSC.dtype
        view = patch_view(x_BSC, kernel, kernel)
        copy = torch.empty(view.shape, dtype=dtype, device=x_BSC.device).copy_(view)
        return copy.flatten(len(kernel) + 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSK: Tensor) -> Gradients:
        whole = all(n % k == 0 for n, k in zip(ctx.shape[1:-1], ctx.kernel, strict=True))
        make = torch.empty if whole else torch.zeros
        x_grad_BSC = make(ctx.shape, dtype=ctx.dtype, device=grad_BSK.device)
        view = patch_view(x_grad_BSC, ctx.kernel, ctx.kernel)
        view.copy_(grad_BSK.reshape(view.shape))
        return x_grad_BSC, None, None


def patches(
    x_BSC: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """See ``functional.py``; in the dtype of the products."""
    if kernel == stride and not any(padding):
        return run(_Patches, x_BSC, kernel, product_dtype(x_BSC))
    return plain_patches(x_BSC, kernel, stride, padding)


def layer_norm(norm: nn.LayerNorm, x_BSC: Tensor, dtype: torch.dtype) -> Tensor:
    """A LayerNorm over the last axis whose result is in ``dtype``. Shape: ``x_BSC -> y_BSC``."""
    return run(_LayerNorm, x_BSC, norm.weight, norm.bias, norm.eps, dtype)
