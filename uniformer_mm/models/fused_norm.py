# SPDX-License-Identifier: Apache-2.0
"""Norms as parts of the formulas of ``fused.py``, and what these ask of a device.

Shapes: ``N`` rows of a map, ``C`` channels, ``O`` and ``I`` output and input channels of a matrix.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ..ops import rows
from ..ops.dispatch import torch_version, why_not_triton
from .functional import autocast_dtype, is_recorded

HALF = (torch.bfloat16, torch.float16)
LAYER, BATCH, RUNNING = 'layer', 'batch', 'running'


@functools.cache
def _has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    return why_not_triton(device, dtype) is None


def runs(x: Tensor) -> bool:
    """Whether maps like ``x`` go through these formulas."""
    return type(x) is Tensor and not is_recorded() and _has_kernels(x.device, x.dtype)


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of ``x``: autocast's, or its own."""
    return autocast_dtype(x) or x.dtype


@functools.cache
def _product_can_widen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a product of half-precision matrices can give float32 (torch 2.8, CUDA)."""
    return (
        device.type == 'cuda'
        and bool(torch.version.cuda)
        and dtype in HALF
        and torch_version() >= (2, 8)
    )


def weight_product(grad_NO: Tensor, x_NI: Tensor) -> Tensor:
    """Gradient of a matrix, in float32 where that costs nothing."""
    if _product_can_widen(x_NI.device, x_NI.dtype):
        return torch.mm(grad_NO.t(), x_NI, out_dtype=torch.float32)
    return grad_NO.t() @ x_NI


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``; the framework takes as long as for a launch to find that it is there."""
    return x if x.dtype is dtype else x.to(dtype)


def as_rows(x_BSC: Tensor) -> Tensor:
    """The positions of a map as rows of channels."""
    return x_BSC.reshape(-1, x_BSC.shape[-1])


def running_norm(norm: nn.Module) -> rows.RunningNorm:
    """The statistics with which a BatchNorm in evaluation normalises."""
    return rows.RunningNorm(norm.running_mean, norm.running_var, norm.eps)


def _running(norm: nn.Module) -> rows.Running | None:
    """The statistics that a BatchNorm moves; None where somebody told it not to."""
    if not norm.track_running_stats:
        return None
    return rows.Running(
        norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum
    )


class FusedNorm:
    """A norm inside a formula: what the forward pass finds, and the gradient.

    Args:
        module: LayerNorm or BatchNorm.
        kind: ``'layer'``, ``'batch'`` (statistics of the batch) or ``'running'``.
        dtype: Of the standardised map.
    """

    def __init__(self, module: nn.Module, kind: str, dtype: torch.dtype) -> None:
        self.kind, self.dtype, self.eps = kind, dtype, module.eps
        self.statistics = _running(module) if kind == BATCH else None
        self.fixed: Tensor | None = None
        if kind == RUNNING and torch.is_grad_enabled():
            # Copies: a pass in training may move them before the backward pass of this one.
            self.fixed = torch.stack((module.running_mean, module.running_var))

    def standardise(self, x_NC: Tensor, copy_NC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The standardised map, with running statistics the map itself, and ``rstd``."""
        kernels = rows.implementation(x_NC)
        if self.kind == LAYER:
            return kernels.layer_standardise(x_NC, self.eps, self.dtype)
        if self.kind == BATCH:
            return kernels.batch_standardise(x_NC, self.eps, self.dtype, self.statistics)
        return cast(x_NC, self.dtype) if copy_NC is None else copy_NC, None

    def fold_grad(
        self,
        folded_grad_OC: Tensor,
        folded_bias_grad_O: Tensor,
        weight_OC: Tensor,
        gamma_C: Tensor,
        beta_C: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the matrix, and of gamma and beta."""
        fold_grad = rows.implementation(weight_OC).fold_grad
        if self.kind != RUNNING:
            return fold_grad(folded_grad_OC, folded_bias_grad_O, weight_OC, gamma_C, beta_C)
        mean_C, var_C = self.fixed
        rstd_C = torch.rsqrt(var_C + self.eps)
        scale_C = gamma_C * rstd_C
        shift_C = beta_C - mean_C * scale_C
        weight_grad_OC, grads = fold_grad(
            folded_grad_OC, folded_bias_grad_O, weight_OC, scale_C, shift_C
        )
        return weight_grad_OC, torch.stack([(grads[0] - grads[1] * mean_C) * rstd_C, grads[1]])

    def grad(
        self,
        grad_NC: Tensor,
        xhat_NC: Tensor,
        rstd: Tensor | None,
        gamma_C: Tensor,
        affine_grad_2C: Tensor | None,
        stream_NC: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """Gradient of the norm's input, added to that of the residual stream."""
        kernels = rows.implementation(grad_NC)
        if self.kind == LAYER:
            return kernels.layer_standardise_grad(grad_NC, xhat_NC, rstd, stream_NC, dtype)
        if self.kind == BATCH:
            return kernels.batch_standardise_grad(
                grad_NC, xhat_NC, rstd, gamma_C, affine_grad_2C, stream_NC, dtype
            )
        if stream_NC is None:
            return cast(grad_NC, dtype)
        return kernels.add_branch(stream_NC, grad_NC)[0]
