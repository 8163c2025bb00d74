# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels in ``triton_norm_kernels.py`` and ``triton_row_kernels.py``.

Names, arguments and shapes as in ``rows.py``. How the kernels divide a map depends on its size,
its channels and the device alone, and is remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import triton_norm_kernels as norm
from . import triton_row_kernels as row
from .launch import Constants, float32, power_of_two, processors
from .rows import Product, Running, RunningNorm
from .triton_weights import fold_alike
from .triton_weights import tables as tables
from .triton_weights import transpose_all as transpose_all

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
        block: Constants of a kernel that takes a tile: its size, the channels, and warps.
        parts: Grid of the programs that sum over rows.
        rows_per_part: Rows that one of them sums.
        join_grid: Grid that joins the parts.
        join_block: Its tile.
    """

    tiles: tuple[int, int]
    block: Constants
    parts: tuple[int, int]
    rows_per_part: int
    join_grid: tuple[int]
    join_block: Constants


@functools.cache
def _block(**constants: int) -> Constants:
    return Constants(constants, **WARPS)


def _join(parts: int, channels: int) -> tuple[tuple[int], Constants]:
    """Few channels and many parts in a program: the loop over parts is what takes time."""
    # The same program for any number of parts that needs a loop.
    block_p = MAX_JOIN_BLOCK_P if parts > 8 else 8
    block_c = JOIN_TILE // MAX_JOIN_BLOCK_P
    return (-(-channels // block_c),), _block(C=channels, BLOCK_P=block_p, BLOCK_C=block_c)


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
        _block(C=channels, BLOCK_N=block_n, BLOCK_C=block_c),
        (parts, blocks_c),
        rows_per_part,
        *_join(parts, channels),
    )


@functools.lru_cache(maxsize=4096)
def _whole_rows(rows: int, channels: int) -> tuple[tuple[int], Constants]:
    """Grid and tile of a kernel whose programs hold whole rows."""
    block_c = power_of_two(channels)
    block_n = max(1, TILE // block_c)
    return (-(-rows // block_n),), _block(C=channels, BLOCK_N=block_n, BLOCK_C=block_c)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    # Not from a shape: the framework takes twice as long to read one.
    return torch.empty_like(x, dtype=dtype)


def _sum_parts(parts_PC: Tensor, grid: tuple[int], block: Constants) -> Tensor:
    parts, channels = parts_PC.shape
    sums_C = float32(parts_PC, channels)
    row.sum_parts(grid, (parts_PC, sums_C), (parts,), block)
    return sums_C


def layer_standardise(x_NC: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    xhat_NC, rstd_N = _like(x_NC, dtype), float32(x_NC, rows)
    grid, block = _whole_rows(rows, channels)
    if x_NC.numel():
        norm.layer_standardise(grid, (x_NC, xhat_NC, rstd_N), (rows, float(eps)), block)
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
        tensors = grad_NC, xhat_NC, rstd_N, stream_NC, x_grad_NC
        norm.layer_standardise_grad(grid, tensors, (rows,), block, (has_stream,))
    return x_grad_NC


def layer_norm(
    x_NC: Tensor, gamma_C: Tensor, beta_C: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    y_NC, mean_N, rstd_N = _like(x_NC, dtype), float32(x_NC, rows), float32(x_NC, rows)
    if x_NC.numel():
        grid, block = _whole_rows(rows, channels)
        tensors = x_NC, gamma_C, beta_C, y_NC, mean_N, rstd_N
        norm.layer_norm(grid, tensors, (rows, float(eps)), block)
    return y_NC, mean_N, rstd_N


def layer_norm_grad(
    grad_NC: Tensor, x_NC: Tensor, mean_N: Tensor, rstd_N: Tensor, gamma_C: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``rows.py``."""
    grad_NC, x_NC = grad_NC.contiguous(), x_NC.contiguous()
    rows, channels = x_NC.shape
    x_grad_NC = _like(x_NC, x_NC.dtype)
    if not x_NC.numel():
        return x_grad_NC, torch.zeros(2, channels, dtype=torch.float32, device=x_NC.device)
    (tiles,), block = _whole_rows(rows, channels)
    parts = min(tiles, PROGRAMS_PER_PROCESSOR * processors(x_NC.device))
    rows_per_part = -(-tiles // parts) * block['BLOCK_N']
    parts = -(-rows // rows_per_part)
    parts_PC = float32(x_NC, parts, 2 * channels)
    tensors = grad_NC, x_NC, mean_N, rstd_N, gamma_C, x_grad_NC, parts_PC
    norm.layer_norm_grad((parts,), tensors, (rows, rows_per_part), block)
    return x_grad_NC, _sum_parts(parts_PC, *_join(parts, 2 * channels)).view(2, channels)


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
    sizes = rows, plan.rows_per_part
    norm.moments_of_parts(plan.parts, (x_NC, parts_P2C), sizes, plan.block)
    norm.join_moments(
        plan.join_grid,
        (parts_P2C, mean_C, rstd_C, mean, var, mean_C if count is None else count),
        (*sizes, parts, float(eps), 0.0 if cumulative else float(momentum)),
        plan.join_block,
        (running is not None, count is not None and not cumulative, cumulative),
    )
    norm.batch_standardise(plan.tiles, (x_NC, mean_C, rstd_C, xhat_NC), (rows,), plan.block)
    if running is not None:
        # What the framework's own operators do to tensors that they change. torch 2.4 takes them
        # one by one.
        for tensor in (mean, var) if count is None else (mean, var, count):
            torch.autograd.graph.increment_version(tensor)
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
        sums_2C = affine_grad_2C.contiguous()
        tensors = grad_NC, xhat_NC, rstd_C, scale_C, sums_2C, stream_NC, x_grad_NC
        norm.batch_standardise_grad(plan.tiles, tensors, (rows,), plan.block, (has_stream,))
    return x_grad_NC


@functools.lru_cache(maxsize=1024)
def _fold_plan(outputs: int, channels: int) -> tuple[tuple[int], Constants]:
    block_c = min(power_of_two(channels), 256)
    block_o = FOLD_TILE // block_c
    return (-(-outputs // block_o),), _block(C=channels, BLOCK_O=block_o, BLOCK_C=block_c)


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
    tensors = weight_OC, bias_O, scale_C, shift_C, mean_C, var_C, folded_OC, folded_O
    row.fold(grid, tensors, (outputs, float(eps)), block, (affine, running is not None))
    return folded_OC, folded_O


def fold_all(products: Sequence[Product], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """See ``rows.py``."""
    folded = fold_alike(products, dtype)
    if folded is not None:
        return folded
    return [
        fold(product.weight.flatten(1), *product[1:4], dtype, product.running)
        for product in products
    ]


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
    bias_grad_O = folded_bias_grad_O.contiguous()
    row.fold_grad(
        (parts, -(-channels // FOLD_GRAD_BLOCK['BLOCK_C'])),
        (folded_grad_OC, bias_grad_O, weight_OC, scale_C, shift_C, weight_grad_OC, parts_PC),
        (outputs, OUTPUTS_PER_PART),
        _block(C=channels, **FOLD_GRAD_BLOCK),
    )
    sums = parts_PC if parts == 1 else _sum_parts(parts_PC, *_join(parts, 2 * channels))
    return weight_grad_OC, sums.view(2, channels)


def _scale_and_sum(x_NC: Tensor, factors_B: Tensor | None, y_NC: Tensor | None) -> Tensor:
    rows, channels = x_NC.shape
    if not x_NC.numel():
        return torch.zeros(channels, dtype=torch.float32, device=x_NC.device)
    plan = _plan(rows, channels, x_NC.device)
    parts_PC = float32(x_NC, plan.parts[0], channels)
    factors = x_NC if factors_B is None else factors_B.contiguous()
    row.scale_and_sum(
        plan.parts,
        (x_NC, factors, x_NC if y_NC is None else y_NC, parts_PC),
        (rows, plan.rows_per_part, 1 if factors_B is None else rows // factors_B.shape[0]),
        plan.block,
        (factors_B is not None, y_NC is not None),
    )
    return _sum_parts(parts_PC, plan.join_grid, plan.join_block)


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
    tensors = grad_NC, h_NC, gelu_NC, grad_NC, parts_PC
    row.gelu_grad(plan.parts, tensors, (rows, plan.rows_per_part), plan.block)
    return gelu_NC, grad_NC, _sum_parts(parts_PC, plan.join_grid, plan.join_block)


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
        factors = x_NC if factors_B is None else factors_B.contiguous()
        row.add_branch(
            plan.tiles,
            (x_NC, branch_NC, factors, y_NC, y_NC if copy_NC is None else copy_NC),
            (rows, 1 if factors_B is None else rows // factors_B.shape[0]),
            plan.block,
            (factors_B is not None, copy_NC is not None),
        )
    return y_NC, copy_NC
