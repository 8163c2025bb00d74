# SPDX-License-Identifier: Apache-2.0
"""What stands beside matrix multiplications: folding, sums over rows, GELU gradient, residual sum.

Sums over rows have two stages, each in a fixed order: a program sums its part of the rows, and
one kernel adds the parts. Everything else is as in ``norm.py``. Names of the launches as in
``ops/rows.py``. Shapes: ``N`` rows, ``C`` channels, ``O`` outputs of a matrix, ``P`` parts.
"""

# A letter that the layers use for their outputs.
# ruff: noqa: E741

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rows import Matrix, RunningNorm
from .grid import constants, divide, join, like
from .launch import Constants, float32, kernel, power_of_two
from .math import normal, store_pair, tile
from .norm import batch_standardise as batch_standardise
from .norm import batch_standardise_grad as batch_standardise_grad
from .norm import layer_standardise as layer_standardise
from .norm import layer_standardise_grad as layer_standardise_grad

FOLD_TILE = 1024
# What one launch folds and transposes; elements to which pieces of its result are aligned.
MATRICES, CONVS, CONV_BLOCK, ALIGNMENT = 4, 2, 64, 16
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


@triton.jit
def _fold_tile(
    tile_id,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    shift_ptr,
    mean_ptr,
    var_ptr,
    eps,
    folded_ptr,
    folded_bias_ptr,
    O: tl.constexpr,
    C: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``weight * scale`` and ``bias + weight @ shift``, cast, for some rows of a matrix.

    ``KIND`` is 0 for the cast alone, 1 for scale and shift, 2 for those of a norm in evaluation,
    its running statistics included.
    """
    o = tile_id * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    for start in tl.static_range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        at, ok = tile(o, c, O, C)
        weight = tl.load(weight_ptr + at, mask=ok, other=0.0).to(tl.float32)
        folded = weight
        if KIND > 0:
            scale = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32)
            shift = tl.load(shift_ptr + c, mask=c < C, other=0.0).to(tl.float32)
            if KIND > 1:
                mean = tl.load(mean_ptr + c, mask=c < C, other=0.0).to(tl.float32)
                var = tl.load(var_ptr + c, mask=c < C, other=1.0).to(tl.float32)
                scale *= tl.rsqrt(var + eps)
                shift -= mean * scale
            folded = weight * scale[None, :]
            total += weight * shift[None, :]
        tl.store(folded_ptr + at, folded.to(folded_ptr.dtype.element_ty), mask=ok)
    bias = tl.load(bias_ptr + o, mask=o < O, other=0.0).to(tl.float32)
    bias += tl.sum(total, axis=1)
    bias = bias.to(folded_bias_ptr.dtype.element_ty)
    tl.store(folded_bias_ptr + o, bias, mask=o < O)


@triton.jit
def _transpose_tile(
    tile_id, weight_ptr, taps_ptr, C: tl.constexpr, K: tl.constexpr, BLOCK_C: tl.constexpr
):
    """``taps_KC`` of ``weight_CK``, for some channels."""
    c = tile_id * BLOCK_C + tl.arange(0, BLOCK_C)
    for k in range(K):
        tl.store(taps_ptr + k * C + c, tl.load(weight_ptr + c * K + k, mask=c < C), mask=c < C)


@kernel()
def fold_all_kernel(
    weight0_ptr,
    bias0_ptr,
    scale0_ptr,
    shift0_ptr,
    mean0_ptr,
    var0_ptr,
    weight1_ptr,
    bias1_ptr,
    scale1_ptr,
    shift1_ptr,
    mean1_ptr,
    var1_ptr,
    weight2_ptr,
    bias2_ptr,
    scale2_ptr,
    shift2_ptr,
    mean2_ptr,
    var2_ptr,
    weight3_ptr,
    bias3_ptr,
    scale3_ptr,
    shift3_ptr,
    mean3_ptr,
    var3_ptr,
    conv0_ptr,
    conv1_ptr,
    folded_ptr,
    taps_ptr,
    eps0,
    eps1,
    eps2,
    eps3,
    O0: tl.constexpr,
    C0: tl.constexpr,
    KIND0: tl.constexpr,
    AT0: tl.constexpr,
    BLOCK_O0: tl.constexpr,
    BLOCK_C0: tl.constexpr,
    END0: tl.constexpr,
    O1: tl.constexpr,
    C1: tl.constexpr,
    KIND1: tl.constexpr,
    AT1: tl.constexpr,
    BLOCK_O1: tl.constexpr,
    BLOCK_C1: tl.constexpr,
    END1: tl.constexpr,
    O2: tl.constexpr,
    C2: tl.constexpr,
    KIND2: tl.constexpr,
    AT2: tl.constexpr,
    BLOCK_O2: tl.constexpr,
    BLOCK_C2: tl.constexpr,
    END2: tl.constexpr,
    O3: tl.constexpr,
    C3: tl.constexpr,
    KIND3: tl.constexpr,
    AT3: tl.constexpr,
    BLOCK_O3: tl.constexpr,
    BLOCK_C3: tl.constexpr,
    END3: tl.constexpr,
    CHANNELS0: tl.constexpr,
    TAPS0: tl.constexpr,
    TAPS_AT0: tl.constexpr,
    CONV_END0: tl.constexpr,
    CHANNELS1: tl.constexpr,
    TAPS1: tl.constexpr,
    TAPS_AT1: tl.constexpr,
    CONV_END1: tl.constexpr,
    CONV_BLOCK: tl.constexpr,
):
    """Up to four matrices and two convolutions; each program has a tile of one of them.

    Slot ``i`` has the tiles from the end of the one before it to ``END_i``, none if they are equal;
    its matrix and, aligned, its bias begin at ``AT_i`` of the result.
    """
    n = tl.program_id(0)
    if n >= 0 and n < END0:
        _fold_tile(
            n - 0,
            weight0_ptr,
            bias0_ptr,
            scale0_ptr,
            shift0_ptr,
            mean0_ptr,
            var0_ptr,
            eps0,
            folded_ptr + AT0,
            folded_ptr + AT0 + (O0 * C0 + 15) // 16 * 16,
            O0,
            C0,
            KIND0,
            BLOCK_O0,
            BLOCK_C0,
        )
    if n >= END0 and n < END1:
        _fold_tile(
            n - END0,
            weight1_ptr,
            bias1_ptr,
            scale1_ptr,
            shift1_ptr,
            mean1_ptr,
            var1_ptr,
            eps1,
            folded_ptr + AT1,
            folded_ptr + AT1 + (O1 * C1 + 15) // 16 * 16,
            O1,
            C1,
            KIND1,
            BLOCK_O1,
            BLOCK_C1,
        )
    if n >= END1 and n < END2:
        _fold_tile(
            n - END1,
            weight2_ptr,
            bias2_ptr,
            scale2_ptr,
            shift2_ptr,
            mean2_ptr,
            var2_ptr,
            eps2,
            folded_ptr + AT2,
            folded_ptr + AT2 + (O2 * C2 + 15) // 16 * 16,
            O2,
            C2,
            KIND2,
            BLOCK_O2,
            BLOCK_C2,
        )
    if n >= END2 and n < END3:
        _fold_tile(
            n - END2,
            weight3_ptr,
            bias3_ptr,
            scale3_ptr,
            shift3_ptr,
            mean3_ptr,
            var3_ptr,
            eps3,
            folded_ptr + AT3,
            folded_ptr + AT3 + (O3 * C3 + 15) // 16 * 16,
            O3,
            C3,
            KIND3,
            BLOCK_O3,
            BLOCK_C3,
        )
    if n >= END3 and n < CONV_END0:
        at = taps_ptr + TAPS_AT0
        _transpose_tile(n - END3, conv0_ptr, at, CHANNELS0, TAPS0, CONV_BLOCK)
    if n >= CONV_END0 and n < CONV_END1:
        at = taps_ptr + TAPS_AT1
        _transpose_tile(n - CONV_END0, conv1_ptr, at, CHANNELS1, TAPS1, CONV_BLOCK)


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


class _FoldGrid(NamedTuple):
    """How :func:`fold_all` divides its work; the sizes are those of pieces of its results."""

    grid: tuple[int]
    block: Constants
    sizes: list[int]
    taps_sizes: list[int]


@functools.lru_cache(maxsize=1024)
def _fold_grid(
    matrices: tuple[tuple[int, int, int], ...], convs: tuple[tuple[int, int], ...]
) -> _FoldGrid:
    """For outputs, channels and kind of each matrix, channels and taps of each convolution."""
    values: dict[str, int] = {'CONV_BLOCK': CONV_BLOCK}
    sizes, taps_sizes, end = [], [], 0
    for slot in range(MATRICES):
        outputs, channels, kind = matrices[slot] if slot < len(matrices) else (0, 1, 0)
        block_c = min(power_of_two(channels), 256)
        block_o = FOLD_TILE // block_c
        end += -(-outputs // block_o)
        names = ('O', 'C', 'KIND', 'AT', 'BLOCK_O', 'BLOCK_C', 'END')
        found = (outputs, channels, kind, sum(sizes), block_o, block_c, end)
        values |= {f'{name}{slot}': value for name, value in zip(names, found, strict=True)}
        for size in (outputs * channels, outputs):
            sizes += [size, -size % ALIGNMENT]
    for slot in range(CONVS):
        channels, taps = convs[slot] if slot < len(convs) else (0, 1)
        end += -(-channels // CONV_BLOCK)
        names = ('CHANNELS', 'TAPS', 'TAPS_AT', 'CONV_END')
        found = (channels, taps, sum(taps_sizes), end)
        values |= {f'{name}{slot}': value for name, value in zip(names, found, strict=True)}
        taps_sizes += [channels * taps, -channels * taps % ALIGNMENT]
    return _FoldGrid((end,), constants(**values), sizes, taps_sizes)


def fold_all(
    matrices: Sequence[Matrix], convs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """See ``ops/rows.py``."""
    if len(matrices) > MATRICES or len(convs) > CONVS:
        first, taps = fold_all(matrices[:MATRICES], convs[:CONVS], dtype)
        more, more_taps = fold_all(matrices[MATRICES:], convs[CONVS:], dtype)
        return first + more, taps + more_taps
    shapes, tensors, epsilons = [], [], []
    for weight, bias, scale, shift, running in matrices:
        kind = 0 if scale is None else 1 if running is None else 2
        shapes.append((weight.shape[0], weight.shape[1], kind))
        mean, var, eps = running or (bias, bias, 0.0)
        affine = (bias, bias) if scale is None else (scale, shift)
        tensors += [weight.contiguous(), bias, *affine, mean, var]
        epsilons.append(float(eps))
    like_this = matrices[0].weight if matrices else convs[0]
    tensors += [like_this] * (6 * MATRICES - len(tensors))
    epsilons += [0.0] * (MATRICES - len(epsilons))
    conv_shapes = tuple((w.shape[0], w[0].numel()) for w in convs)
    grid, block, sizes, taps_sizes = _fold_grid(tuple(shapes), conv_shapes)
    folded = torch.empty((sum(sizes),), dtype=dtype, device=like_this.device)
    taps_like = convs[0] if convs else like_this
    taps = torch.empty((sum(taps_sizes),), dtype=taps_like.dtype, device=like_this.device)
    tensors += [*(w.contiguous() for w in convs), *(taps_like,) * (CONVS - len(convs))]
    fold_all_kernel(grid, (*tensors, folded, taps), tuple(epsilons), block)
    pieces, taps_pieces = folded.split_with_sizes(sizes), taps.split_with_sizes(taps_sizes)
    found = [
        (pieces[4 * slot].view(outputs, channels), pieces[4 * slot + 2])
        for slot, (outputs, channels, _) in enumerate(shapes)
    ]
    return found, [
        taps_pieces[2 * slot].view(count, channels)
        for slot, (channels, count) in enumerate(conv_shapes)
    ]


def fold(
    weight_OC: Tensor,
    bias_O: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    dtype: torch.dtype,
    running: RunningNorm | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    matrix = Matrix(weight_OC, bias_O, scale_C, shift_C, running)
    return fold_all([matrix], (), dtype)[0][0]


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
