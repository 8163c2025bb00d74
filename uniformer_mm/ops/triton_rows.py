# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels in ``triton_norm_kernels.py`` and ``triton_row_kernels.py``.

Names, arguments and shapes as in ``rows.py``. How the kernels divide a map depends on its size,
its channels and the device alone, and is remembered.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from . import triton_norm_kernels as norm
from . import triton_row_kernels as row
from .launch import float32, on, power_of_two, processors
from .rows import Running, RunningNorm

# Elements of a tile: 16 for each of 128 threads.
TILE = 2048
WARPS = {'num_warps': 4}
# Parts of a sum over rows: enough programs to fill a GPU, few enough that adding them up is small.
PROGRAMS_PER_PROCESSOR = 8
JOIN_TILE = 2048
MAX_JOIN_BLOCK_P = 128
FOLD_TILE = 1024
OUTPUTS_PER_PART = 256
FOLD_GRAD_BLOCK = {'BLOCK_O': 64, 'BLOCK_C': 16}


def _block_c(channels: int) -> int:
    """As many channels as possible with as little padding as possible."""
    return min((64, 32, 16, 8), key=lambda size: (-(-channels // size) * size, -size))


@dataclass(frozen=True)
class _Plan:
    """How the kernels divide the rows of a map.

    Attributes:
        tiles: Grid of one program for each tile.
        block: Rows and channels of a tile, and warps.
        parts: Grid of the programs that sum over rows.
        rows_per_part: Rows that one of them sums.
        join_grid: Grid that joins the parts.
        join_block: Its tile.
    """

    tiles: tuple[int, int]
    block: dict[str, int]
    parts: tuple[int, int]
    rows_per_part: int
    join_grid: tuple[int]
    join_block: dict[str, int]


@functools.lru_cache(maxsize=4096)
def _join(parts: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    """Few channels and many parts in a program: the loop over parts is what takes time."""
    block_p = min(power_of_two(parts), MAX_JOIN_BLOCK_P)
    # The same program for any number of parts that needs a loop.
    block_p = MAX_JOIN_BLOCK_P if block_p > 8 else 8
    block_c = JOIN_TILE // MAX_JOIN_BLOCK_P
    block = {'BLOCK_P': block_p, 'BLOCK_C': block_c, **WARPS}
    return (-(-channels // block_c),), block


@functools.lru_cache(maxsize=4096)
def _plan(rows: int, channels: int, device: torch.device) -> _Plan:
    block_c = _block_c(channels)
    block_n = TILE // block_c
    tiles, blocks_c = -(-rows // block_n), -(-channels // block_c)
    programs = PROGRAMS_PER_PROCESSOR * processors(device)
    parts = max(1, min(tiles, programs // blocks_c))
    rows_per_part = max(1, -(-tiles // parts)) * block_n
    parts = -(-rows // rows_per_part)
    return _Plan(
        (tiles, blocks_c),
        {'BLOCK_N': block_n, 'BLOCK_C': block_c, **WARPS},
        (parts, blocks_c),
        rows_per_part,
        *_join(parts, channels),
    )


@functools.lru_cache(maxsize=4096)
def _whole_rows(rows: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    """Grid and tile of a kernel whose programs hold whole rows."""
    block_c = power_of_two(channels)
    block_n = max(1, TILE // block_c)
    return (-(-rows // block_n),), {'BLOCK_N': block_n, 'BLOCK_C': block_c, **WARPS}


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def _sum_parts(parts_PC: Tensor, plan_join: tuple[tuple[int], dict[str, int]]) -> Tensor:
    parts, channels = parts_PC.shape
    sums_C = float32(parts_PC, channels)
    grid, block = plan_join
    row.sum_parts[grid](parts_PC, sums_C, parts, channels, **block)
    return sums_C


def layer_standardise(x_NC: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    xhat_NC, rstd_N = _like(x_NC, dtype), float32(x_NC, rows)
    grid, block = _whole_rows(rows, channels)
    if x_NC.numel():
        with on(x_NC.device):
            norm.layer_standardise[grid](x_NC, xhat_NC, rstd_N, rows, eps, channels, **block)
    return xhat_NC, rstd_N


def layer_standardise_grad(
    grad_NC: Tensor, xhat_NC: Tensor, rstd_N: Tensor, stream_NC: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """See ``rows.py``."""
    grad_NC, xhat_NC = grad_NC.contiguous(), xhat_NC.contiguous()
    has_stream = stream_NC is not None
    stream_NC = stream_NC.contiguous() if has_stream else grad_NC
    rows, channels = grad_NC.shape
    x_grad_NC = _like(grad_NC, dtype)
    grid, block = _whole_rows(rows, channels)
    if grad_NC.numel():
        with on(grad_NC.device):
            norm.layer_standardise_grad[grid](
                grad_NC, xhat_NC, rstd_N, stream_NC, x_grad_NC, rows, channels, has_stream, **block
            )
    return x_grad_NC


def batch_standardise(
    x_NC: Tensor, eps: float, dtype: torch.dtype, running: Running | None
) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    xhat_NC = _like(x_NC, dtype)
    if not x_NC.numel():
        return xhat_NC, torch.zeros(channels, dtype=torch.float32, device=x_NC.device)
    plan = _plan(rows, channels, x_NC.device)
    parts = plan.parts[0]
    parts_P2C = float32(x_NC, parts, 2, channels)
    mean_C, rstd_C = float32(x_NC, channels), float32(x_NC, channels)
    mean, var, count, momentum = running or (mean_C, mean_C, None, 0.0)
    cumulative = momentum is None
    if cumulative:
        # Every program reads the counter, so none of them can count.
        count.add_(1)
    with on(x_NC.device):
        norm.moments_of_parts[plan.parts](
            x_NC, parts_P2C, rows, plan.rows_per_part, channels, **plan.block
        )
        norm.join_moments[plan.join_grid](
            parts_P2C,
            mean_C,
            rstd_C,
            mean,
            var,
            mean_C if count is None else count,
            rows,
            plan.rows_per_part,
            parts,
            eps,
            0.0 if cumulative else momentum,
            channels,
            running is not None,
            count is not None and not cumulative,
            cumulative,
            **plan.join_block,
        )
        norm.batch_standardise[plan.tiles](
            x_NC, mean_C, rstd_C, xhat_NC, rows, channels, **plan.block
        )
    if running is not None:
        # What the framework's own operators do to tensors that they change.
        torch.autograd.graph.increment_version([mean, var] + [count] * (count is not None))
    return xhat_NC, rstd_C


def batch_standardise_grad(
    grad_NC: Tensor,
    xhat_NC: Tensor,
    rstd_C: Tensor,
    scale_C: Tensor,
    affine_grad_2C: Tensor,
    stream_NC: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See ``rows.py``."""
    grad_NC, xhat_NC = grad_NC.contiguous(), xhat_NC.contiguous()
    has_stream = stream_NC is not None
    stream_NC = stream_NC.contiguous() if has_stream else grad_NC
    rows, channels = grad_NC.shape
    x_grad_NC = _like(grad_NC, dtype)
    if grad_NC.numel():
        plan = _plan(rows, channels, grad_NC.device)
        with on(grad_NC.device):
            norm.batch_standardise_grad[plan.tiles](
                grad_NC,
                xhat_NC,
                rstd_C,
                scale_C,
                affine_grad_2C.contiguous(),
                stream_NC,
                x_grad_NC,
                rows,
                channels,
                has_stream,
                **plan.block,
            )
    return x_grad_NC


@functools.lru_cache(maxsize=1024)
def _fold_plan(outputs: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    block_c = min(power_of_two(channels), 256)
    block_o = FOLD_TILE // block_c
    return (-(-outputs // block_o),), {'BLOCK_O': block_o, 'BLOCK_C': block_c, **WARPS}


def fold(
    weight_OC: Tensor,
    bias_O: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    dtype: torch.dtype,
    running: RunningNorm | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    affine = scale_C is not None
    if not affine and weight_OC.dtype == bias_O.dtype == dtype:
        return weight_OC.contiguous(), bias_O
    weight_OC = weight_OC.contiguous()
    outputs, channels = weight_OC.shape
    folded_OC, folded_O = _like(weight_OC, dtype), _like(bias_O, dtype)
    scale_C, shift_C = (scale_C, shift_C) if affine else (bias_O, bias_O)
    mean_C, var_C, eps = running or (bias_O, bias_O, 0.0)
    grid, block = _fold_plan(outputs, channels)
    with on(weight_OC.device):
        row.fold[grid](
            weight_OC,
            bias_O,
            scale_C,
            shift_C,
            mean_C,
            var_C,
            folded_OC,
            folded_O,
            outputs,
            eps,
            channels,
            affine,
            running is not None,
            **block,
        )
    return folded_OC, folded_O


def fold_grad(
    folded_grad_OC: Tensor,
    folded_bias_grad_O: Tensor,
    weight_OC: Tensor,
    scale_C: Tensor,
    shift_C: Tensor,
) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    folded_grad_OC, weight_OC = folded_grad_OC.contiguous(), weight_OC.contiguous()
    outputs, channels = weight_OC.shape
    parts = -(-outputs // OUTPUTS_PER_PART)
    parts_PC = float32(weight_OC, parts, 2 * channels)
    weight_grad_OC = _like(weight_OC, weight_OC.dtype)
    grid = parts, -(-channels // FOLD_GRAD_BLOCK['BLOCK_C'])
    with on(weight_OC.device):
        row.fold_grad[grid](
            folded_grad_OC,
            folded_bias_grad_O.contiguous(),
            weight_OC,
            scale_C,
            shift_C,
            weight_grad_OC,
            parts_PC,
            outputs,
            OUTPUTS_PER_PART,
            channels,
            **FOLD_GRAD_BLOCK,
            **WARPS,
        )
        sums = parts_PC if parts == 1 else _sum_parts(parts_PC, _join(parts, 2 * channels))
    return weight_grad_OC, sums.view(2, channels)


def _scale_and_sum(x_NC: Tensor, factors_B: Tensor | None, y_NC: Tensor | None) -> Tensor:
    rows, channels = x_NC.shape
    if not x_NC.numel():
        return torch.zeros(channels, dtype=torch.float32, device=x_NC.device)
    plan = _plan(rows, channels, x_NC.device)
    parts_PC = float32(x_NC, plan.parts[0], channels)
    factors = x_NC if factors_B is None else factors_B.contiguous()
    with on(x_NC.device):
        row.scale_and_sum[plan.parts](
            x_NC,
            factors,
            x_NC if y_NC is None else y_NC,
            parts_PC,
            rows,
            plan.rows_per_part,
            1 if factors_B is None else rows // len(factors_B),
            channels,
            factors_B is not None,
            y_NC is not None,
            **plan.block,
        )
        return _sum_parts(parts_PC, (plan.join_grid, plan.join_block))


def column_sum(x_NC: Tensor) -> Tensor:
    """See ``rows.py``."""
    return _scale_and_sum(x_NC.contiguous(), None, None)


def branch_grad(
    grad_NC: Tensor, factors_B: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    grad_NC = grad_NC.contiguous()
    if factors_B is None and grad_NC.dtype == dtype:
        return grad_NC, _scale_and_sum(grad_NC, None, None)
    branch_grad_NC = _like(grad_NC, dtype)
    return branch_grad_NC, _scale_and_sum(grad_NC, factors_B, branch_grad_NC)


def gelu_grad(grad_NC: Tensor, h_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``rows.py``."""
    grad_NC, h_NC = grad_NC.contiguous(), h_NC.contiguous()
    rows, channels = h_NC.shape
    gelu_NC = _like(h_NC, h_NC.dtype)
    if not h_NC.numel():
        return gelu_NC, grad_NC, torch.zeros(channels, dtype=torch.float32, device=h_NC.device)
    plan = _plan(rows, channels, h_NC.device)
    parts_PC = float32(h_NC, plan.parts[0], channels)
    with on(h_NC.device):
        row.gelu_grad[plan.parts](
            grad_NC,
            h_NC,
            gelu_NC,
            grad_NC,
            parts_PC,
            rows,
            plan.rows_per_part,
            channels,
            **plan.block,
        )
        sums_C = _sum_parts(parts_PC, (plan.join_grid, plan.join_block))
    return gelu_NC, grad_NC, sums_C


def add_branch(
    x_NC: Tensor,
    branch_NC: Tensor,
    factors_B: Tensor | None = None,
    copy: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """See ``rows.py``."""
    x_NC, branch_NC = x_NC.contiguous(), branch_NC.contiguous()
    rows, channels = x_NC.shape
    y_NC = _like(x_NC, x_NC.dtype)
    copy_NC = None if copy is None else _like(x_NC, copy)
    if x_NC.numel():
        plan = _plan(rows, channels, x_NC.device)
        with on(x_NC.device):
            row.add_branch[plan.tiles](
                x_NC,
                branch_NC,
                x_NC if factors_B is None else factors_B.contiguous(),
                y_NC,
                y_NC if copy_NC is None else copy_NC,
                rows,
                1 if factors_B is None else rows // len(factors_B),
                channels,
                factors_B is not None,
                copy_NC is not None,
                **plan.block,
            )
    return y_NC, copy_NC
