# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of the MLP: two matrix products and a GELU whose hidden map stays on chip.

A program owns some rows and goes through the hidden units in chunks: product, GELU, product. The
backward kernels make the hidden chunk again from the input, which is all that the forward pass
keeps. Each product takes what the one before it left in registers as its first operand, so nothing
is transposed on the way: the kernel of the parameters therefore works on transposed chunks.

Shapes: ``N`` rows, ``C`` input channels, ``H`` hidden units, ``O`` output channels, ``P`` parts of
the rows; a suffix such as ``_NH`` names the axes of a program's tile. Sums are float32. Offsets of
rows are 64-bit. The number of rows is no compile-time constant: another image size compiles
nothing.
"""

# A letter that the layers use for their outputs.
# ruff: noqa: E741

from __future__ import annotations

import triton
import triton.language as tl

from .launch import kernel
from .triton_shared import normal

# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'parts']


@triton.jit
def _product(a, b, total, WIDEN: tl.constexpr):
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
        h_NH = _product(x_NC, tl.trans(w1_HC), tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        h_NH += b1_H[None, :]
        below_NH, _ = normal(h_NH)
        g_NH = (h_NH * below_NH).to(w2_OH.dtype)
        sum_NO = _product(g_NH, tl.trans(w2_OH), sum_NO, WIDEN)
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
        h_NH = _product(x_NC, tl.trans(w1_HC), tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        d_NH = _product(grad_NO, w2_OH, tl.zeros((BLOCK_N, BLOCK_H), tl.float32), WIDEN)
        h_NH += b1_H[None, :]
        below_NH, density_NH = normal(h_NH)
        d_NH *= below_NH + h_NH * density_NH
        sum_NC = _product(d_NH.to(w1_HC.dtype), w1_HC, sum_NC, WIDEN)
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
        # Not in the loop below: a sum over rows makes the matrix products around it wait.
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
        h_HN = _product(w1_HC, tl.trans(x_NC), tl.zeros((BLOCK_H, BLOCK_N), tl.float32), WIDEN)
        d_HN = _product(w2_HO, tl.trans(grad_NO), tl.zeros((BLOCK_H, BLOCK_N), tl.float32), WIDEN)
        h_HN += b1_H[:, None]
        below_HN, density_HN = normal(h_HN)
        g_HN = h_HN * below_HN
        d_HN *= below_HN + h_HN * density_HN
        sum_H += tl.sum(d_HN, axis=1)
        sum_HO = _product(g_HN.to(grad_NO.dtype), grad_NO, sum_HO, WIDEN)
        sum_HC = _product(d_HN.to(x_NC.dtype), x_NC, sum_HC, WIDEN)

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
