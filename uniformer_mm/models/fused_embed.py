# SPDX-License-Identifier: Apache-2.0
"""Patch embeddings and norms between stages, for eager mode where Triton kernels run.

See ``fused.py``. A map becomes patches and takes the dtype of the product in one copy, and the norm
after the product writes the residual stream in its own dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import rows
from .functional import patch_view
from .fused import Gradients, once_differentiable, run
from .fused_norm import as_rows, cast, product_dtype

# Where a view of a clip's patches has the time taps.
TIME_TAP = 4


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
        return y_NC.view_as(x_BSC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSC: Tensor) -> Gradients:
        x_NC, mean_N, rstd_N, gamma_C = ctx.saved_tensors
        layer_norm_grad = rows.implementation(x_NC).layer_norm_grad
        inputs = as_rows(grad_BSC), x_NC, mean_N, rstd_N, gamma_C
        x_grad_NC, affine_grad_2C = layer_norm_grad(*inputs)
        gamma_grad, beta_grad = cast(affine_grad_2C, gamma_C.dtype).unbind()
        return x_grad_NC.view_as(grad_BSC), gamma_grad, beta_grad, None, None


class _Patches(torch.autograd.Function):
    """Patches in another dtype; in time they may overlap and reach beyond the clip."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSC: Tensor,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad_t: int,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.shape, ctx.dtype, ctx.geometry = x_BSC.shape, x_BSC.dtype, (kernel, stride, pad_t)
        view = patch_view(_padded(x_BSC, pad_t, dtype) if pad_t else x_BSC, kernel, stride)
        copy = torch.empty(view.shape, dtype=dtype, device=x_BSC.device).copy_(view)
        return copy.flatten(len(kernel) + 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSK: Tensor) -> Gradients:
        kernel, stride, pad_t = ctx.geometry
        B, frames, *rest = ctx.shape
        apart = kernel == stride
        whole = apart and all(n % k == 0 for n, k in zip(ctx.shape[1:-1], kernel, strict=True))
        x_grad_BSC = (torch.empty if whole else torch.zeros)(
            (B, frames + 2 * pad_t, *rest), dtype=ctx.dtype, device=grad_BSK.device
        )
        view = patch_view(x_grad_BSC, kernel, stride)
        grad = grad_BSK.reshape(view.shape)
        if apart:
            view.copy_(grad)
        else:
            # One time tap after the other: the patches of one do not overlap.
            for into, tap in zip(view.unbind(TIME_TAP), grad.unbind(TIME_TAP), strict=True):
                into.add_(tap)
        return x_grad_BSC[:, pad_t : pad_t + frames], None, None, None, None


def _padded(x_BTHWC: Tensor, pad_t: int, dtype: torch.dtype) -> Tensor:
    """A clip between ``pad_t`` frames of zeros on either side, in another dtype."""
    B, T, H, W, C = x_BTHWC.shape
    padded = T + 2 * pad_t
    # Maps have their channels last in memory, clips as they come first: copies keep that.
    if x_BTHWC.is_contiguous():
        y_BTHWC = x_BTHWC.new_empty((B, padded, H, W, C), dtype=dtype)
    else:
        y_BTHWC = x_BTHWC.new_empty((B, C, padded, H, W), dtype=dtype).movedim(1, -1)
    y_BTHWC[:, :pad_t].zero_()
    y_BTHWC[:, T + pad_t :].zero_()
    y_BTHWC[:, pad_t : T + pad_t].copy_(x_BTHWC)
    return y_BTHWC


def patches(
    x_BSC: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """See ``functional.py``; in the dtype of the products.

    Only in time may patches overlap or reach beyond the map.
    """
    assert kernel[-2:] == stride[-2:] and not any(padding[-2:])
    return run(_Patches, x_BSC, kernel, stride, max(padding), product_dtype(x_BSC))


def layer_norm(norm: nn.LayerNorm, x_BSC: Tensor, dtype: torch.dtype) -> Tensor:
    """A LayerNorm over the last axis whose result is in ``dtype``. Shape: ``x_BSC -> y_BSC``."""
    return run(_LayerNorm, x_BSC, norm.weight, norm.bias, norm.eps, dtype)
