# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels in ``triton_mlp_kernels.py``. Names and shapes as in ``mlp.py``."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .dispatch import triton_is_interpreted
from .launch import Constants, float32, power_of_two, processors
from .mlp_tiles import ADD, FORWARD, INPUT_GRAD, MIN_BLOCK, WEIGHT_GRAD, MlpTile, mlp_tile
from .triton_mlp_kernels import (
    mlp_forward,
    mlp_input_grad,
    mlp_sum_parts,
    mlp_weight_grad_parts,
)
from .triton_row_kernels import sum_parts

SUM_BLOCK = {'BLOCK_P': 32, 'BLOCK_K': 64, 'num_warps': 4}
SUM_B2_BLOCK = {'BLOCK_P': 128, 'BLOCK_C': 16, 'num_warps': 4}

# The forward kernel keeps the input alone.
KEEPS_HIDDEN = False


@dataclass(frozen=True)
class _Plan:
    """How a kernel divides the work, for one size of the matrices.

    Attributes:
        block_n: Rows of a program.
        chunks: Chunks of hidden units.
        programs: Programs that run at a time.
        constants: Of the kernel.
    """

    block_n: int
    chunks: int
    programs: int
    constants: Constants


def _block(n: int) -> int:
    return max(MIN_BLOCK, power_of_two(n))


def _is_hopper(device: torch.device) -> bool:
    """Whether limits of registers count: elsewhere, what they save goes to memory.

    The CPU stands for Hopper: ``tools/kernel_assembly.py`` compiles there.
    """
    if device.type != 'cuda':
        return True
    return not torch.version.hip and torch.cuda.get_device_capability(device)[0] == 9


@functools.cache
def _plan(
    operation: str,
    channels: int,
    hidden: int,
    outputs: int,
    dtype: torch.dtype,
    device: torch.device,
    tile: MlpTile | None,
) -> _Plan:
    tile = tile or mlp_tile(operation, max(channels, outputs), dtype.itemsize)
    block_h = min(tile.block_h, _block(hidden))
    constants: dict[str, int | bool] = {
        'C': channels,
        'H': hidden,
        'O': outputs,
        'BLOCK_N': tile.block_n,
        'BLOCK_H': block_h,
        'BLOCK_C': _block(channels),
        'BLOCK_O': _block(outputs),
        'WIDEN': triton_is_interpreted(),
        'num_warps': tile.warps,
        'num_stages': tile.stages,
    }
    if tile.registers and _is_hopper(device):
        constants['maxnreg'] = tile.registers
    programs = tile.programs * processors(device)
    return _Plan(tile.block_n, -(-hidden // block_h), programs, Constants(constants))


@functools.cache
def _sum_constants(channels: int, hidden: int, outputs: int) -> tuple[Constants, Constants]:
    matrices = Constants(C=channels, H=hidden, O=outputs, **SUM_BLOCK)
    return matrices, Constants(C=outputs, **SUM_B2_BLOCK)


def forward(
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    b_O: Tensor,
    add_BSO: Tensor | None = None,
    tile: MlpTile | None = None,
) -> Tensor:
    """See ``mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    dtype = w_HC.dtype if add_BSO is None else add_BSO.dtype
    y_BSO = x_BSC.new_empty(*x_BSC.shape[:-1], outputs, dtype=dtype)
    rows = y_BSO.numel() // outputs
    if rows:
        operation = FORWARD if add_BSO is None else ADD
        plan = _plan(operation, channels, hidden, outputs, w_HC.dtype, x_BSC.device, tile)
        parameters = (tensor.contiguous() for tensor in (w_HC, b_H, w_OH, b_O))
        added_BSO = y_BSO if add_BSO is None else add_BSO.contiguous()
        mlp_forward(
            (-(-rows // plan.block_n),),
            (x_BSC, *parameters, added_BSO, y_BSO),
            (rows,),
            plan.constants,
            (add_BSO is not None,),
        )
    return y_BSO


def input_grad(
    grad_BSO: Tensor,
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    tile: MlpTile | None = None,
) -> Tensor:
    """See ``mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    x_grad_BSC = torch.empty_like(x_BSC)
    rows = x_BSC.numel() // channels
    if rows:
        plan = _plan(INPUT_GRAD, channels, hidden, outputs, x_BSC.dtype, x_BSC.device, tile)
        inputs = (tensor.contiguous() for tensor in (grad_BSO, x_BSC, w_HC, b_H, w_OH))
        grid = (-(-rows // plan.block_n),)
        mlp_input_grad(grid, (*inputs, x_grad_BSC), (rows,), plan.constants)
    return x_grad_BSC


def weight_grad(
    grad_BSO: Tensor,
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    has_b_O: bool,
    tile: MlpTile | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    rows = x_BSC.numel() // channels
    plan = _plan(WEIGHT_GRAD, channels, hidden, outputs, x_BSC.dtype, x_BSC.device, tile)
    blocks = -(-rows // plan.block_n)
    parts = max(1, min(blocks, plan.programs // plan.chunks))
    rows_per_part = max(1, -(-blocks // parts)) * plan.block_n
    parts = -(-rows // rows_per_part)

    size = hidden * (channels + outputs + 1)
    w_HC_grad, b_H_grad = float32(x_BSC, hidden, channels), float32(x_BSC, hidden)
    w_OH_grad, b_O_grad = float32(x_BSC, outputs, hidden), float32(x_BSC, outputs * has_b_O)
    parts_PK = float32(x_BSC, parts, size)
    b_O_parts_PO = float32(x_BSC, parts * plan.chunks, outputs) if has_b_O else parts_PK
    if parts:
        inputs = (tensor.contiguous() for tensor in (grad_BSO, x_BSC, w_HC, b_H, w_OH))
        mlp_weight_grad_parts(
            (plan.chunks, parts),
            (*inputs, parts_PK, b_O_parts_PO),
            (rows, rows_per_part),
            plan.constants,
            (has_b_O,),
        )
    constants, b2_constants = _sum_constants(channels, hidden, outputs)
    grid = (-(-size // SUM_BLOCK['BLOCK_K']),)
    mlp_sum_parts(grid, (parts_PK, w_HC_grad, b_H_grad, w_OH_grad), (parts,), constants)
    if has_b_O:
        grid = (-(-outputs // SUM_B2_BLOCK['BLOCK_C']),)
        sum_parts(grid, (b_O_parts_PO, b_O_grad), (parts * plan.chunks,), b2_constants)
    return w_HC_grad, b_H_grad, w_OH_grad, b_O_grad
