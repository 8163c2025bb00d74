# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of the MLP: two matrix multiplications and a GELU whose hidden map stays on chip.

A program owns some rows and goes through the hidden units in chunks: matmul, GELU, matmul. The
backward kernels make the hidden chunk again from the input, which is all that the forward pass
keeps. Each matmul takes what the one before it left in registers as its first operand, so nothing
is transposed on the way: the kernel of the parameters therefore works on transposed chunks.

Shapes: ``N`` rows, ``C`` input channels, ``H`` hidden units, ``O`` output channels, ``P`` parts of
the rows; a suffix such as ``_NH`` names the axes of a program's tile. Sums are float32. Offsets of
rows are 64-bit. The number of rows is no compile-time constant: another image size compiles
nothing.
Names of the launches as in ``ops/mlp.py``.
"""

# A letter that the layers use for their outputs.
# ruff: noqa: E741

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import triton_is_interpreted
from .launch import Constants, float32, kernel, power_of_two, processors
from .math import normal
from .mlp_tiles import ADD, FORWARD, INPUT_GRAD, MIN_BLOCK, WEIGHT_GRAD, MlpTile, mlp_tile
from .rows import sum_parts_kernel

SUM_BLOCK = {'BLOCK_P': 32, 'BLOCK_K': 64, 'num_warps': 4}
SUM_B2_BLOCK = {'BLOCK_P': 128, 'BLOCK_C': 16, 'num_warps': 4}

# The forward kernel keeps the input alone.
KEEPS_HIDDEN = False
# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'parts']


@triton.jit
def _matmul(a, b, total, WIDEN: tl.constexpr):
    """``total + a @ b``. The interpreter multiplies the bits of bfloat16 unless it is widened."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision='ieee')


@triton.jit
def _load(ptr, rows, columns, STRIDE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """The first rows and columns of a matrix, zero beyond ``rows`` and ``columns``."""
    r = tl.arange(0, BLOCK_R)[:, None]
    c = tl.arange(0, BLOCK_C)[None, :]
    return tl.load(ptr + r * STRIDE + c, mask=(r < rows) & (c < columns), other=0.0)


@triton.jit
def _store(ptr, value, rows, columns, STRIDE: tl.constexpr):
    r = tl.arange(0, value.shape[0])[:, None]
    c = tl.arange(0, value.shape[1])[None, :]
    value = value.to(ptr.dtype.element_ty)
    tl.store(ptr + r * STRIDE + c, value, mask=(r < rows) & (c < columns))


@triton.jit
def _load_vector(ptr, length, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    return tl.load(ptr + at, mask=at < length, other=0.0).to(tl.float32)


@kernel(['ADDS'], do_not_specialize=SIZES)
def mlp_forward(
    x_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    add_ptr,
    y_ptr,
    rows,
    C: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """``y = gelu(x @ w1 + b1) @ w2 + b2`` (+ add); ``w1_HC``, ``w2_OH``.

    ``x`` is rounded to the dtype of the matrices; ``add`` and ``y`` share a dtype of their own.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    left = tl.minimum(rows - first, BLOCK_N).to(tl.int32)
    x_NC = _load(x_ptr + first * C, left, C, C, BLOCK_N, BLOCK_C).to(w1_ptr.dtype.element_ty)
    sum_NO = tl.zeros((BLOCK_N, BLOCK_O), tl.float32)
    for start in range(0, H, BLOCK_H):
        w1_HC = _load(w1_ptr + start * C, H - start, C, C, BLOCK_H, BLOCK_C)
        w2_OH = _load(w2_ptr + start, O, H - start, H, BLOCK_O, BLOCK_H)
        b1_H = _load_vector(b1_ptr + start, H - start, BLOCK_H)
        h_NH = _matmul(x_NC, tl.trans(w1_HC), tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        h_NH += b1_H[None, :]
        below_NH, _ = normal(h_NH)
        g_NH = (h_NH * below_NH).to(w2_OH.dtype)
        sum_NO = _matmul(g_NH, tl.trans(w2_OH), sum_NO, WIDEN)
    sum_NO += _load_vector(b2_ptr, O, BLOCK_O)[None, :]
    if ADDS:
        sum_NO += _load(add_ptr + first * O, left, O, O, BLOCK_N, BLOCK_O).to(tl.float32)
    _store(y_ptr + first * O, sum_NO, left, O, O)


@kernel(do_not_specialize=SIZES)
def mlp_input_grad(
    grad_ptr,
    x_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    x_grad_ptr,
    rows,
    C: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Gradient of ``x_NC`` from ``grad_NO``."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    left = tl.minimum(rows - first, BLOCK_N).to(tl.int32)
    x_NC = _load(x_ptr + first * C, left, C, C, BLOCK_N, BLOCK_C)
    grad_NO = _load(grad_ptr + first * O, left, O, O, BLOCK_N, BLOCK_O)
    sum_NC = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, H, BLOCK_H):
        w1_HC = _load(w1_ptr + start * C, H - start, C, C, BLOCK_H, BLOCK_C)
        w2_OH = _load(w2_ptr + start, O, H - start, H, BLOCK_O, BLOCK_H)
        b1_H = _load_vector(b1_ptr + start, H - start, BLOCK_H)
        h_NH = _matmul(x_NC, tl.trans(w1_HC), tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        d_NH = _matmul(grad_NO, w2_OH, tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        h_NH += b1_H[None, :]
        below_NH, density_NH = normal(h_NH)
        d_NH *= below_NH + h_NH * density_NH
        sum_NC = _matmul(d_NH.to(w1_HC.dtype), w1_HC, sum_NC, WIDEN)
    _store(x_grad_ptr + first * C, sum_NC, left, C, C)


@kernel(['HAS_B2'], do_not_specialize=SIZES)
def mlp_weight_grad_parts(
    grad_ptr,
    x_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    parts_ptr,
    b2_parts_ptr,
    rows,
    rows_per_part,
    C: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    HAS_B2: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Gradients of one chunk of hidden units, summed over the rows of one part.

    A part holds ``w1_HC``, ``w2_HO`` (transposed) and ``b1_H`` one behind the other. The chunks of
    a part share its rows for the gradient of ``b2_O``, so ``b2_parts`` has a row for each of them.
    """
    chunk = tl.program_id(0)
    part = tl.program_id(1).to(tl.int64)
    first = part * rows_per_part
    left = tl.minimum(rows - first, rows_per_part).to(tl.int32)

    if HAS_B2:
        # Not in the loop below: a sum over rows makes the matmuls around it wait.
        chunks = tl.num_programs(0)
        sum_NO = tl.zeros((BLOCK_N, BLOCK_O), tl.float32)
        for done in range(chunk * BLOCK_N, left, chunks * BLOCK_N):
            grad_at = grad_ptr + (first + done) * O
            grad_NO = _load(grad_at, left - done, O, O, BLOCK_N, BLOCK_O)
            sum_NO += grad_NO.to(tl.float32)
        o = tl.arange(0, BLOCK_O)
        b2_parts_ptr += (part * chunks + chunk) * O
        tl.store(b2_parts_ptr + o, tl.sum(sum_NO, axis=0), mask=o < O)

    start = chunk * BLOCK_H
    w1_HC = _load(w1_ptr + start * C, H - start, C, C, BLOCK_H, BLOCK_C)
    w2_HO = tl.trans(_load(w2_ptr + start, O, H - start, H, BLOCK_O, BLOCK_H))
    b1_H = _load_vector(b1_ptr + start, H - start, BLOCK_H)
    sum_HC = tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    sum_HO = tl.zeros((BLOCK_H, BLOCK_O), tl.float32)
    sum_H = tl.zeros((BLOCK_H,), tl.float32)
    for done in range(0, left, BLOCK_N):
        at = first + done
        x_NC = _load(x_ptr + at * C, left - done, C, C, BLOCK_N, BLOCK_C)
        grad_NO = _load(grad_ptr + at * O, left - done, O, O, BLOCK_N, BLOCK_O)
        h_HN = _matmul(w1_HC, tl.trans(x_NC), tl.zeros((BLOCK_H, BLOCK_N), tl.float32), WIDEN)
        d_HN = _matmul(w2_HO, tl.trans(grad_NO), tl.zeros((BLOCK_H, BLOCK_N), tl.float32), WIDEN)
        h_HN += b1_H[:, None]
        below_HN, density_HN = normal(h_HN)
        g_HN = h_HN * below_HN
        d_HN *= below_HN + h_HN * density_HN
        sum_H += tl.sum(d_HN, axis=1)
        sum_HO = _matmul(g_HN.to(grad_NO.dtype), grad_NO, sum_HO, WIDEN)
        sum_HC = _matmul(d_HN.to(x_NC.dtype), x_NC, sum_HC, WIDEN)

    parts_ptr += part * (H * (C + O + 1))
    _store(parts_ptr + start * C, sum_HC, H - start, C, C)
    _store(parts_ptr + H * C + start * O, sum_HO, H - start, O, O)
    h = tl.arange(0, BLOCK_H)
    tl.store(parts_ptr + H * (C + O) + start + h, sum_H, mask=h < H - start)


@kernel(do_not_specialize=SIZES)
def mlp_sum_parts(
    parts_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    parts,
    C: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Adds the parts in a fixed order into ``w1_HC``, ``b1_H`` and ``w2_OH``."""
    SIZE: tl.constexpr = H * (C + O + 1)
    p = tl.arange(0, BLOCK_P)[:, None]
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    sum_PK = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
    for done in range(0, parts, BLOCK_P):
        at = parts_ptr + (done + p).to(tl.int64) * SIZE + k[None, :]
        sum_PK += tl.load(at, mask=(done + p < parts) & (k < SIZE)[None, :], other=0.0)
    sum_K = tl.sum(sum_PK, axis=0)
    tl.store(w1_ptr + k, sum_K, mask=k < H * C)
    k -= H * C
    tl.store(w2_ptr + k % O * H + k // O, sum_K, mask=(k >= 0) & (k < H * O))
    k -= H * O
    tl.store(b1_ptr + k, sum_K, mask=(k >= 0) & (k < H))


@dataclass(frozen=True)
class _Division:
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
def _divide(
    operation: str,
    channels: int,
    hidden: int,
    outputs: int,
    dtype: torch.dtype,
    device: torch.device,
    tile: MlpTile | None,
) -> _Division:
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
    return _Division(tile.block_n, -(-hidden // block_h), programs, Constants(constants))


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
    """See ``ops/mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    dtype = w_HC.dtype if add_BSO is None else add_BSO.dtype
    y_BSO = x_BSC.new_empty(*x_BSC.shape[:-1], outputs, dtype=dtype)
    rows = y_BSO.numel() // outputs
    if rows:
        operation = FORWARD if add_BSO is None else ADD
        division = _divide(operation, channels, hidden, outputs, w_HC.dtype, x_BSC.device, tile)
        parameters = (tensor.contiguous() for tensor in (w_HC, b_H, w_OH, b_O))
        added_BSO = y_BSO if add_BSO is None else add_BSO.contiguous()
        mlp_forward(
            (-(-rows // division.block_n),),
            (x_BSC, *parameters, added_BSO, y_BSO),
            (rows,),
            division.constants,
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
    """See ``ops/mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    x_grad_BSC = torch.empty_like(x_BSC)
    rows = x_BSC.numel() // channels
    if rows:
        division = _divide(INPUT_GRAD, channels, hidden, outputs, x_BSC.dtype, x_BSC.device, tile)
        inputs = (tensor.contiguous() for tensor in (grad_BSO, x_BSC, w_HC, b_H, w_OH))
        grid = (-(-rows // division.block_n),)
        mlp_input_grad(grid, (*inputs, x_grad_BSC), (rows,), division.constants)
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
    """See ``ops/mlp.py``."""
    (hidden, channels), outputs = w_HC.shape, w_OH.shape[0]
    x_BSC = x_BSC.contiguous()
    rows = x_BSC.numel() // channels
    division = _divide(WEIGHT_GRAD, channels, hidden, outputs, x_BSC.dtype, x_BSC.device, tile)
    blocks = -(-rows // division.block_n)
    parts = max(1, min(blocks, division.programs // division.chunks))
    rows_per_part = max(1, -(-blocks // parts)) * division.block_n
    parts = -(-rows // rows_per_part)

    size = hidden * (channels + outputs + 1)
    w_HC_grad, b_H_grad = float32(x_BSC, hidden, channels), float32(x_BSC, hidden)
    w_OH_grad, b_O_grad = float32(x_BSC, outputs, hidden), float32(x_BSC, outputs * has_b_O)
    parts_PK = float32(x_BSC, parts, size)
    b_O_parts_PO = float32(x_BSC, parts * division.chunks, outputs) if has_b_O else parts_PK
    if parts:
        inputs = (tensor.contiguous() for tensor in (grad_BSO, x_BSC, w_HC, b_H, w_OH))
        mlp_weight_grad_parts(
            (division.chunks, parts),
            (*inputs, parts_PK, b_O_parts_PO),
            (rows, rows_per_part),
            division.constants,
            (has_b_O,),
        )
    constants, b2_constants = _sum_constants(channels, hidden, outputs)
    grid = (-(-size // SUM_BLOCK['BLOCK_K']),)
    mlp_sum_parts(grid, (parts_PK, w_HC_grad, b_H_grad, w_OH_grad), (parts,), constants)
    if has_b_O:
        grid = (-(-outputs // SUM_B2_BLOCK['BLOCK_C']),)
        sum_parts_kernel(grid, (b_O_parts_PO, b_O_grad), (parts * division.chunks,), b2_constants)
    return w_HC_grad, b_H_grad, w_OH_grad, b_O_grad
