# SPDX-License-Identifier: Apache-2.0
"""Triton kernels beside the matrix products: folding, sums over rows, GELU gradient, residual sum.

Sums over rows have two stages, each in a fixed order: a program sums its part of the rows, and
one kernel adds the parts. Everything else is as in ``triton_norm_kernels.py``. Shapes: ``N`` rows,
``C`` channels, ``O`` outputs of a matrix, ``P`` parts.
"""

from __future__ import annotations

import triton.language as tl

from .launch import kernel
from .triton_shared import normal, store_pair, tile

# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'rows_per_sample', 'parts', 'outputs', 'outputs_per_part']


@kernel(do_not_specialize=SIZES)
def sum_parts(
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
def scale_and_sum(
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
def gelu_grad(
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
def add_branch(
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
def fold(
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
def fold_grad(
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
