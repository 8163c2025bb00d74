# SPDX-License-Identifier: Apache-2.0
"""The operations of ``ops/rows.py`` out of PyTorch's own operators.

Fused blocks run on Triton kernels only; this is what an explicit call gets elsewhere, and in
float64 the form in which whole blocks are tested. Names as in ``ops/rows.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..rows import Matrix, Running, RunningNorm


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _per_row(factors_B: Tensor, rows: int) -> Tensor:
    return _wide(factors_B).repeat_interleave(rows // max(len(factors_B), 1))[:, None]


def layer_standardise(x_NC: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    var_N1, mean_N1 = torch.var_mean(_wide(x_NC), 1, correction=0, keepdim=True)
    rstd_N1 = torch.rsqrt(var_N1 + eps)
    return ((x_NC - mean_N1) * rstd_N1).to(dtype), rstd_N1[:, 0]


def layer_standardise_grad(
    grad_NC: Tensor, xhat_NC: Tensor, rstd_N: Tensor, stream_NC: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """See ``ops/rows.py``."""
    grad, xhat = _wide(grad_NC), _wide(xhat_NC)
    inner = grad - grad.mean(1, keepdim=True) - xhat * (grad * xhat).mean(1, keepdim=True)
    total = rstd_N[:, None] * inner
    return (total if stream_NC is None else total + stream_NC).to(dtype)


def _update(running: Running, mean_C: Tensor, var_C: Tensor, rows: int) -> None:
    if running.count is not None:
        running.count.add_(1)
    share = running.momentum
    if share is None:
        share = 1 / running.count.to(mean_C.dtype)
    for old, new in ((running.mean, mean_C), (running.var, var_C * (rows / max(rows - 1, 1)))):
        old.copy_((1 - share) * _wide(old) + share * new)


def batch_standardise(
    x_NC: Tensor, eps: float, dtype: torch.dtype, running: Running | None
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    if not len(x_NC):
        return x_NC.to(dtype, copy=True), _wide(x_NC).new_zeros(x_NC.shape[1])
    var_C, mean_C = torch.var_mean(_wide(x_NC), 0, correction=0)
    rstd_C = torch.rsqrt(var_C + eps)
    if running is not None:
        _update(running, mean_C, var_C, len(x_NC))
    return ((x_NC - mean_C) * rstd_C).to(dtype), rstd_C


def batch_standardise_grad(
    grad_NC: Tensor,
    xhat_NC: Tensor,
    rstd_C: Tensor,
    scale_C: Tensor,
    affine_grad_2C: Tensor,
    stream_NC: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See ``ops/rows.py``."""
    mean_both, mean_grad = affine_grad_2C * _wide(scale_C) / max(len(grad_NC), 1)
    total = rstd_C * (_wide(grad_NC) - mean_grad - _wide(xhat_NC) * mean_both)
    return (total if stream_NC is None else total + stream_NC).to(dtype)


def fold(
    weight_OC: Tensor,
    bias_O: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    dtype: torch.dtype,
    running: RunningNorm | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    if scale_C is None:
        return weight_OC.to(dtype), bias_O.to(dtype)
    weight, scale, shift = _wide(weight_OC), _wide(scale_C), _wide(shift_C)
    if running is not None:
        scale = scale * torch.rsqrt(_wide(running.var) + running.eps)
        shift = shift - running.mean * scale
    bias = _wide(bias_O) + (weight * shift).sum(1)
    return (weight * scale).to(dtype), bias.to(dtype)


def fold_all(
    matrices: Sequence[Matrix], convs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[list[tuple[Tensor, Tensor]], list[None]]:
    """See ``ops/rows.py``."""
    folded = [fold(m.weight.flatten(1), *m[1:4], dtype, m.running) for m in matrices]
    return folded, [None] * len(convs)


def fold_grad(
    folded_grad_OC: Tensor,
    folded_bias_grad_O: Tensor,
    weight_OC: Tensor,
    scale_C: Tensor,
    shift_C: Tensor,
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    grad, weight = _wide(folded_grad_OC), _wide(weight_OC)
    bias_grad_O1 = _wide(folded_bias_grad_O)[:, None]
    weight_grad = grad * scale_C + bias_grad_O1 * shift_C
    affine_grad_2C = torch.stack([(grad * weight).sum(0), (bias_grad_O1 * weight).sum(0)])
    return weight_grad.to(weight_OC.dtype), affine_grad_2C


def column_sum(x_NC: Tensor) -> Tensor:
    """See ``ops/rows.py``."""
    return _wide(x_NC).sum(0)


def gelu_grad(grad_NC: Tensor, h_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``ops/rows.py``."""
    h_grad_NC = torch.ops.aten.gelu_backward(grad_NC, h_NC)
    return F.gelu(h_NC), h_grad_NC, column_sum(h_grad_NC)


def add_branch(
    x_NC: Tensor,
    branch_NC: Tensor,
    factors_B: Tensor | None = None,
    copy: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """See ``ops/rows.py``."""
    if factors_B is not None:
        branch_NC = _wide(branch_NC) * _per_row(factors_B, len(x_NC))
    y_NC = (x_NC + branch_NC).to(x_NC.dtype)
    return y_NC, None if copy is None else y_NC.to(copy)


def branch_grad(
    grad_NC: Tensor, factors_B: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    grad = _wide(grad_NC)
    if factors_B is not None:
        grad = grad * _per_row(factors_B, len(grad_NC))
    return grad.to(dtype), grad.sum(0)
