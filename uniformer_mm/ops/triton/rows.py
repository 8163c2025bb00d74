# SPDX-License-Identifier: Apache-2.0
"""What stands beside matrix multiplications: folding, sums over rows, GELU gradient, residual sum.

Sums over rows have two stages, each in a fixed order: a program sums its part of the rows, and
one kernel adds the parts. Everything else is as in ``norm.py``. Names of the launches as in
``ops/rows.py``. Shapes: ``N`` rows, ``C`` channels, ``O`` outputs of a matrix, ``P`` parts.
"""

from __future__ import annotations

import functools

import torch
import triton.language as tl
from torch import Tensor

from ..rows import RunningNorm
from .grid import constants, divide, join, like
from .launch import Constants, float32, kernel, power_of_two
from .math import normal, store_pair, tile
from .norm import batch_standardise as batch_standardise
from .norm import batch_standardise_grad as batch_standardise_grad
from .norm import layer_standardise as layer_standardise
from .norm import layer_standardise_grad as layer_standardise_grad

FOLD_TILE = 1024
OUTPUTS_PER_PART = 256
FOLD_GRAD_BLOCK = {'BLOCK_O': 64, 'BLOCK_C': 16}
# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'rows_per_sample', 'parts', 'outputs', 'outputs_per_part']


@kernel(do_not_specialize=SIZES)
def sum_parts_kernel(
    parts_ptr, sums_ptr, parts, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Adds ``parts_PC`` into ``sums_C``."""
    lane = tl.arange(0, BLOCK_P)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_P):
        p = start + lane
        at, ok = tile(p, c, parts, C)
        total += tl.load(parts_ptr + at, mask=ok, other=0.0)
    tl.store(sums_ptr + c, tl.sum(total, axis=0), mask=c < C)


@kernel(['HAS_FACTORS', 'STORES'], do_not_specialize=SIZES)
def scale_and_sum_kernel(
    x_ptr,
    factors_ptr,
    y_ptr,
    parts_ptr,
    rows,
    rows_per_part,
    rows_per_sample,
    C: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    STORES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``y = x * factor of the sample``, and the sums ``parts_PC`` of y over each part's rows."""
    part = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = part * rows_per_part
    last = min(first + rows_per_part, rows)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        at, ok = tile(n, c, last, C)
        value = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
        if HAS_FACTORS:
            factor = tl.load(factors_ptr + n // rows_per_sample, mask=n < last, other=0.0)
            value *= factor.to(tl.float32)[:, None]
        if STORES:
            tl.store(y_ptr + at, value.to(y_ptr.dtype.element_ty), mask=ok)
        total += value
    tl.store(parts_ptr + part.to(tl.int64) * C + c, tl.sum(total, axis=0), mask=c < C)


@kernel(do_not_specialize=SIZES)
def gelu_grad_kernel(
    grad_ptr,
    h_ptr,
    gelu_ptr,
    h_grad_ptr,
    parts_ptr,
    rows,
    rows_per_part,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``gelu(h)``, ``grad * gelu'(h)`` and the sums ``parts_PC`` of the latter.

    ``h_grad`` may be the memory of ``grad``: each element is read before it is written.
    """
    part = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = part * rows_per_part
    last = min(first + rows_per_part, rows)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        at, ok = tile(n, c, last, C)
        h = tl.load(h_ptr + at, mask=ok, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + at, mask=ok, other=0.0).to(tl.float32)
        kept, density = normal(h)
        h_grad = grad * (kept + h * density)
        tl.store(gelu_ptr + at, (h * kept).to(gelu_ptr.dtype.element_ty), mask=ok)
        tl.store(h_grad_ptr + at, h_grad.to(h_grad_ptr.dtype.element_ty), mask=ok)
        total += h_grad
    tl.store(parts_ptr + part.to(tl.int64) * C + c, tl.sum(total, axis=0), mask=c < C)


@kernel(['HAS_FACTORS', 'COPIES'], do_not_specialize=SIZES)
def add_branch_kernel(
    x_ptr,
    branch_ptr,
    factors_ptr,
    y_ptr,
    copy_ptr,
    rows,
    rows_per_sample,
    C: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``y = x + branch * factor of the sample``, and a copy of y in another dtype."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    branch = tl.load(branch_ptr + at, mask=ok, other=0.0).to(tl.float32)
    if HAS_FACTORS:
        factor = tl.load(factors_ptr + n // rows_per_sample, mask=n < rows, other=0.0)
        branch *= factor.to(tl.float32)[:, None]
    y = x + branch
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=ok)
    if COPIES:
        tl.store(copy_ptr + at, y.to(copy_ptr.dtype.element_ty), mask=ok)


@kernel(['AFFINE', 'RUNNING'], do_not_specialize=SIZES)
def fold_kernel(
    weight_ptr,
    bias_ptr,
    scale_ptr,
    shift_ptr,
    mean_ptr,
    var_ptr,
    folded_ptr,
    folded_bias_ptr,
    outputs,
    eps,
    C: tl.constexpr,
    AFFINE: tl.constexpr,
    RUNNING: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``weight * scale`` and ``bias + weight @ shift``, cast.

    With ``RUNNING`` statistics they are the scale and shift of the whole norm. Without ``AFFINE``
    it is the cast alone.
    """
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    for start in tl.static_range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        at, ok = tile(o, c, outputs, C)
        weight = tl.load(weight_ptr + at, mask=ok, other=0.0).to(tl.float32)
        folded = weight
        if AFFINE:
            scale = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32)
            shift = tl.load(shift_ptr + c, mask=c < C, other=0.0).to(tl.float32)
            if RUNNING:
                mean = tl.load(mean_ptr + c, mask=c < C, other=0.0).to(tl.float32)
                var = tl.load(var_ptr + c, mask=c < C, other=1.0).to(tl.float32)
                scale *= tl.rsqrt(var + eps)
                shift -= mean * scale
            folded = weight * scale[None, :]
            total += weight * shift[None, :]
        tl.store(folded_ptr + at, folded.to(folded_ptr.dtype.element_ty), mask=ok)
    bias = tl.load(bias_ptr + o, mask=o < outputs, other=0.0).to(tl.float32)
    bias += tl.sum(total, axis=1)
    bias = bias.to(folded_bias_ptr.dtype.element_ty)
    tl.store(folded_bias_ptr + o, bias, mask=o < outputs)


@kernel(do_not_specialize=SIZES)
def fold_grad_kernel(
    folded_grad_ptr,
    folded_bias_grad_ptr,
    weight_ptr,
    scale_ptr,
    shift_ptr,
    weight_grad_ptr,
    parts_ptr,
    outputs,
    outputs_per_part,
    C: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Weight gradient, and gradients of scale and shift over a part's outputs: ``parts_P2C``."""
    part = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    scale = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    first = part * outputs_per_part
    last = min(first + outputs_per_part, outputs)
    scale_grad = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    shift_grad = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        at, ok = tile(o, c, last, C)
        grad = tl.load(folded_grad_ptr + at, mask=ok, other=0.0).to(tl.float32)
        bias_grad = tl.load(folded_bias_grad_ptr + o, mask=o < last, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + at, mask=ok, other=0.0).to(tl.float32)
        total = grad * scale[None, :] + bias_grad[:, None] * shift[None, :]
        tl.store(weight_grad_ptr + at, total.to(weight_grad_ptr.dtype.element_ty), mask=ok)
        scale_grad += grad * weight
        shift_grad += bias_grad[:, None] * weight
    store_pair(parts_ptr, part, c, tl.sum(scale_grad, axis=0), tl.sum(shift_grad, axis=0), C)


def _add_parts(parts_PC: Tensor, grid: tuple[int], block: Constants) -> Tensor:
    parts, channels = parts_PC.shape
    sums_C = float32(parts_PC, channels)
    sum_parts_kernel(grid, (parts_PC, sums_C), (parts,), block)
    return sums_C


@functools.lru_cache(maxsize=1024)
def _fold_grid(outputs: int, channels: int) -> tuple[tuple[int], Constants]:
    block_c = min(power_of_two(channels), 256)
    block_o = FOLD_TILE // block_c
    return (-(-outputs // block_o),), constants(C=channels, BLOCK_O=block_o, BLOCK_C=block_c)


def fold(
    weight_OC: Tensor,
    bias_O: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    dtype: torch.dtype,
    running: RunningNorm | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    affine = scale_C is not None
    if not affine and weight_OC.dtype == bias_O.dtype == dtype:
        return weight_OC.contiguous(), bias_O
    weight_OC = weight_OC.contiguous()
    outputs, channels = weight_OC.shape
    folded_OC, folded_O = like(weight_OC, dtype), like(bias_O, dtype)
    scale_C, shift_C = (scale_C, shift_C) if affine else (bias_O, bias_O)
    mean_C, var_C, eps = running or (bias_O, bias_O, 0.0)
    grid, block = _fold_grid(outputs, channels)
    tensors = weight_OC, bias_O, scale_C, shift_C, mean_C, var_C, folded_OC, folded_O
    fold_kernel(grid, tensors, (outputs, float(eps)), block, (affine, running is not None))
    return folded_OC, folded_O


def fold_grad(
    folded_grad_OC: Tensor,
    folded_bias_grad_O: Tensor,
    weight_OC: Tensor,
    scale_C: Tensor,
    shift_C: Tensor,
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    folded_grad_OC, weight_OC = folded_grad_OC.contiguous(), weight_OC.contiguous()
    outputs, channels = weight_OC.shape
    parts = -(-outputs // OUTPUTS_PER_PART)
    parts_PC = float32(weight_OC, parts, 2 * channels)
    weight_grad_OC = like(weight_OC, weight_OC.dtype)
    bias_grad_O = folded_bias_grad_O.contiguous()
    fold_grad_kernel(
        (parts, -(-channels // FOLD_GRAD_BLOCK['BLOCK_C'])),
        (folded_grad_OC, bias_grad_O, weight_OC, scale_C, shift_C, weight_grad_OC, parts_PC),
        (outputs, OUTPUTS_PER_PART),
        constants(C=channels, **FOLD_GRAD_BLOCK),
    )
    sums = parts_PC if parts == 1 else _add_parts(parts_PC, *join(parts, 2 * channels))
    return weight_grad_OC, sums.view(2, channels)


def _scale_and_sum(x_NC: Tensor, factors_B: Tensor | None, y_NC: Tensor | None) -> Tensor:
    rows, channels = x_NC.shape
    if not x_NC.numel():
        return torch.zeros(channels, dtype=torch.float32, device=x_NC.device)
    division = divide(rows, channels, x_NC.device)
    parts_PC = float32(x_NC, division.parts[0], channels)
    factors = x_NC if factors_B is None else factors_B.contiguous()
    scale_and_sum_kernel(
        division.parts,
        (x_NC, factors, x_NC if y_NC is None else y_NC, parts_PC),
        (rows, division.rows_per_part, 1 if factors_B is None else rows // factors_B.shape[0]),
        division.block,
        (factors_B is not None, y_NC is not None),
    )
    return _add_parts(parts_PC, division.join_grid, division.join_block)


def column_sum(x_NC: Tensor) -> Tensor:
    """See ``ops/rows.py``."""
    return _scale_and_sum(x_NC.contiguous(), None, None)


def branch_grad(
    grad_NC: Tensor, factors_B: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    grad_NC = grad_NC.contiguous()
    if factors_B is None and grad_NC.dtype == dtype:
        return grad_NC, _scale_and_sum(grad_NC, None, None)
    branch_grad_NC = like(grad_NC, dtype)
    return branch_grad_NC, _scale_and_sum(grad_NC, factors_B, branch_grad_NC)


def gelu_grad(grad_NC: Tensor, h_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``ops/rows.py``."""
    grad_NC, h_NC = grad_NC.contiguous(), h_NC.contiguous()
    rows, channels = h_NC.shape
    gelu_NC = like(h_NC, h_NC.dtype)
    if not h_NC.numel():
        return gelu_NC, grad_NC, torch.zeros(channels, dtype=torch.float32, device=h_NC.device)
    division = divide(rows, channels, h_NC.device)
    parts_PC = float32(h_NC, division.parts[0], channels)
    tensors = grad_NC, h_NC, gelu_NC, grad_NC, parts_PC
    gelu_grad_kernel(division.parts, tensors, (rows, division.rows_per_part), division.block)
    return gelu_NC, grad_NC, _add_parts(parts_PC, division.join_grid, division.join_block)


def add_branch(
    x_NC: Tensor,
    branch_NC: Tensor,
    factors_B: Tensor | None = None,
    copy: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """See ``ops/rows.py``."""
    x_NC, branch_NC = x_NC.contiguous(), branch_NC.contiguous()
    rows, channels = x_NC.shape
    y_NC = like(x_NC, x_NC.dtype)
    copy_NC = None if copy is None else like(x_NC, copy)
    if x_NC.numel():
        division = divide(rows, channels, x_NC.device)
        factors = x_NC if factors_B is None else factors_B.contiguous()
        add_branch_kernel(
            division.tiles,
            (x_NC, branch_NC, factors, y_NC, y_NC if copy_NC is None else copy_NC),
            (rows, 1 if factors_B is None else rows // factors_B.shape[0]),
            division.block,
            (factors_B is not None, copy_NC is not None),
        )
    return y_NC, copy_NC
