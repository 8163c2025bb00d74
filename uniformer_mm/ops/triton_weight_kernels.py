# SPDX-License-Identifier: Apache-2.0
"""Triton kernels that make many matrices ready at once.

A table in device memory says where each matrix lies; a program finds the matrix of its tile there.
Shapes: ``O`` rows and ``C`` columns of a matrix, ``J`` matrices ("jobs").
"""

from __future__ import annotations

import triton
import triton.language as tl

from .launch import kernel

# Columns of the table: addresses of weight, bias, scale, shift, mean and variance (0: none), rows,
# columns, number of the first tile, and where matrix and bias go in the result.
FIELDS = 11


@triton.jit
def matrix_of_tile(
    table_ptr, job_of_tile_ptr, like_ptr, FIELDS: tl.constexpr, BLOCK_O: tl.constexpr
):
    """Number and row of the table of a program's matrix, its address, its size, the tile's rows.

    Addresses are of elements of the type that ``like`` points to.
    """
    tile = tl.program_id(0)
    job = tl.load(job_of_tile_ptr + tile)
    row_ptr = table_ptr + job * FIELDS
    weight_ptr = tl.load(row_ptr).to(like_ptr.dtype)
    rows = tl.load(row_ptr + 6)
    columns = tl.load(row_ptr + 7)
    o = (tile - tl.load(row_ptr + 8)) * BLOCK_O + tl.arange(0, BLOCK_O)
    return job, row_ptr, weight_ptr, rows, columns, o


@kernel()
def fold_all(
    table_ptr,
    eps_ptr,
    job_of_tile_ptr,
    like_ptr,
    out_ptr,
    FIELDS: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Some rows of one of the matrices: see ``fold`` in ``triton_row_kernels.py``."""
    job, row_ptr, weight_ptr, rows, columns, o = matrix_of_tile(
        table_ptr, job_of_tile_ptr, like_ptr, FIELDS, BLOCK_O
    )
    bias_ptr = tl.load(row_ptr + 1).to(like_ptr.dtype)
    scale_at = tl.load(row_ptr + 2)
    shift_ptr = tl.load(row_ptr + 3).to(like_ptr.dtype)
    mean_at = tl.load(row_ptr + 4)
    var_ptr = tl.load(row_ptr + 5).to(like_ptr.dtype)
    out_ptr_OC = out_ptr + tl.load(row_ptr + 9)
    out_ptr_O = out_ptr + tl.load(row_ptr + 10)
    eps = tl.load(eps_ptr + job)

    total = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    for start in range(0, columns, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        ok = (o < rows)[:, None] & (c < columns)[None, :]
        at = o[:, None] * columns + c[None, :]
        folded = tl.load(weight_ptr + at, mask=ok, other=0.0).to(tl.float32)
        if scale_at != 0:
            scale_ptr = scale_at.to(like_ptr.dtype)
            scale = tl.load(scale_ptr + c, mask=c < columns, other=0.0).to(tl.float32)
            shift = tl.load(shift_ptr + c, mask=c < columns, other=0.0).to(tl.float32)
            if mean_at != 0:
                mean_ptr = mean_at.to(like_ptr.dtype)
                mean = tl.load(mean_ptr + c, mask=c < columns, other=0.0).to(tl.float32)
                var = tl.load(var_ptr + c, mask=c < columns, other=1.0).to(tl.float32)
                scale *= tl.rsqrt(var + eps)
                shift -= mean * scale
            total += folded * shift[None, :]
            folded *= scale[None, :]
        tl.store(out_ptr_OC + at, folded.to(out_ptr.dtype.element_ty), mask=ok)
    bias = tl.load(bias_ptr + o, mask=o < rows, other=0.0).to(tl.float32)
    bias += tl.sum(total, axis=1)
    tl.store(out_ptr_O + o, bias.to(out_ptr.dtype.element_ty), mask=o < rows)


@kernel()
def transpose_all(
    table_ptr,
    job_of_tile_ptr,
    like_ptr,
    out_ptr,
    FIELDS: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Some rows of one of the matrices, as columns."""
    _, row_ptr, weight_ptr, rows, columns, o = matrix_of_tile(
        table_ptr, job_of_tile_ptr, like_ptr, FIELDS, BLOCK_O
    )
    out_ptr += tl.load(row_ptr + 9)
    for start in range(0, columns, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        ok = (o < rows)[:, None] & (c < columns)[None, :]
        value = tl.load(weight_ptr + o[:, None] * columns + c[None, :], mask=ok, other=0.0)
        tl.store(out_ptr + c[None, :] * rows + o[:, None], value, mask=ok)
