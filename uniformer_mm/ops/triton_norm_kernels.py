# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of LayerNorm and BatchNorm on rows of channels, mostly without affine parts.

A tile is some rows and some or all channels; every access is contiguous. Statistics, sums and the
arithmetic are float32. BatchNorm's moments are found in two stages, each in a fixed order: a
program follows the mean and the sum of squared deviations (Welford) of its part of the rows, and
one kernel joins the parts. Offsets are 64-bit. ``C`` is a compile-time constant, the number of rows
is not: another image size compiles nothing. Shapes: ``N`` rows, ``C`` channels, ``P`` parts.
"""

from __future__ import annotations

import triton.language as tl

from .launch import kernel
from .triton_shared import moments, standardise_grad, store_pair, tile

# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'parts']


@kernel(do_not_specialize=SIZES)
def layer_standardise(
    x_ptr,
    xhat_ptr,
    rstd_ptr,
    rows,
    eps,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``xhat_NC`` and ``rstd_N`` of ``x_NC``; a program holds whole rows."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    _, centred, rstd = moments(x, c, eps, C)
    tl.store(xhat_ptr + at, (centred * rstd[:, None]).to(xhat_ptr.dtype.element_ty), mask=ok)
    tl.store(rstd_ptr + n, rstd, mask=n < rows)


@kernel(['HAS_STREAM'], do_not_specialize=SIZES)
def layer_standardise_grad(
    grad_ptr,
    xhat_ptr,
    rstd_ptr,
    stream_ptr,
    x_grad_ptr,
    rows,
    C: tl.constexpr,
    HAS_STREAM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``stream + rstd (grad - mean(grad) - xhat mean(grad xhat))``, the means over a row."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    grad = tl.load(grad_ptr + at, mask=ok, other=0.0).to(tl.float32)
    xhat = tl.load(xhat_ptr + at, mask=ok, other=0.0).to(tl.float32)
    rstd = tl.load(rstd_ptr + n, mask=n < rows, other=0.0)
    total = standardise_grad(grad, xhat, rstd, C)
    if HAS_STREAM:
        total += tl.load(stream_ptr + at, mask=ok, other=0.0).to(tl.float32)
    tl.store(x_grad_ptr + at, total.to(x_grad_ptr.dtype.element_ty), mask=ok)


@kernel(do_not_specialize=SIZES)
def layer_norm(
    x_ptr,
    gamma_ptr,
    beta_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    rows,
    eps,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``y_NC``, ``mean_N`` and ``rstd_N`` of ``x_NC``; a program holds whole rows."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    mean, centred, rstd = moments(x, c, eps, C)
    y = centred * rstd[:, None] * gamma[None, :] + beta[None, :]
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=ok)
    tl.store(mean_ptr + n, mean, mask=n < rows)
    tl.store(rstd_ptr + n, rstd, mask=n < rows)


@kernel(do_not_specialize=SIZES)
def layer_norm_grad(
    grad_ptr,
    x_ptr,
    mean_ptr,
    rstd_ptr,
    gamma_ptr,
    x_grad_ptr,
    parts_ptr,
    rows,
    rows_per_part,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``x_grad_NC``, and for each part the sums ``parts_P2C`` of ``grad xhat`` and ``grad``."""
    part = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    gamma = tl.load(gamma_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    first = part * rows_per_part
    last = min(first + rows_per_part, rows)
    sum_both = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    sum_grad = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        at, ok = tile(n, c, last, C)
        grad = tl.load(grad_ptr + at, mask=ok, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + n, mask=n < last, other=0.0)
        rstd = tl.load(rstd_ptr + n, mask=n < last, other=0.0)
        xhat = tl.where(ok, (x - mean[:, None]) * rstd[:, None], 0.0)
        sum_both += grad * xhat
        sum_grad += grad
        grad *= gamma[None, :]
        total = standardise_grad(grad, xhat, rstd, C)
        tl.store(x_grad_ptr + at, total.to(x_grad_ptr.dtype.element_ty), mask=ok)
    store_pair(parts_ptr, part, c, tl.sum(sum_both, axis=0), tl.sum(sum_grad, axis=0), C)


@kernel(do_not_specialize=SIZES)
def moments_of_parts(
    x_ptr,
    parts_ptr,
    rows,
    rows_per_part,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and sum of squared deviations of each part of the rows: ``parts_P2C``."""
    part = tl.program_id(0)
    lane = tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = part * rows_per_part
    last = min(first + rows_per_part, rows)

    mean = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    seen = 0.0
    for start in range(first, last, BLOCK_N):
        n = start + lane
        at, ok = tile(n, c, last, C)
        x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
        seen += 1.0
        away = tl.where(ok, x - mean, 0.0)
        mean += away * (1.0 / seen)
        squares += away * (x - mean)

    # Rows that each lane has seen: the last turn may have filled some lanes only.
    count = ((last - first - lane + BLOCK_N - 1) // BLOCK_N).to(tl.float32)[:, None]
    count = tl.maximum(count, 0.0)
    part_mean = tl.sum(mean * count, axis=0) / (last - first)
    away = mean - part_mean[None, :]
    part_squares = tl.sum(squares + count * away * away, axis=0)
    store_pair(parts_ptr, part, c, part_mean, part_squares, C)


@kernel(['TRACKS', 'COUNTS', 'CUMULATIVE'], do_not_specialize=SIZES)
def join_moments(
    parts_ptr,
    mean_ptr,
    rstd_ptr,
    running_mean_ptr,
    running_var_ptr,
    count_ptr,
    rows,
    rows_per_part,
    parts,
    eps,
    momentum,
    C: tl.constexpr,
    TRACKS: tl.constexpr,
    COUNTS: tl.constexpr,
    CUMULATIVE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``mean_C`` and ``rstd_C`` from ``parts_P2C``; moves the running statistics.

    ``COUNTS`` adds 1 to the counter of batches. ``CUMULATIVE`` reads it (already counted) and moves
    by its inverse instead of the momentum.
    """
    lane = tl.arange(0, BLOCK_P)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_P):
        p = start + lane
        at, ok = tile(2 * p, c, 2 * parts, C)
        count = tl.minimum(rows - p * rows_per_part, rows_per_part).to(tl.float32)[:, None]
        total += count * tl.load(parts_ptr + at, mask=ok, other=0.0)
    mean = tl.sum(total, axis=0) / rows

    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_P):
        p = start + lane
        at, ok = tile(2 * p, c, 2 * parts, C)
        count = tl.minimum(rows - p * rows_per_part, rows_per_part).to(tl.float32)[:, None]
        away = tl.load(parts_ptr + at, mask=ok, other=0.0) - mean[None, :]
        squares = tl.load(parts_ptr + at + C, mask=ok, other=0.0)
        total += tl.where(ok, squares + count * away * away, 0.0)
    var = tl.sum(total, axis=0) / rows

    ok = c < C
    tl.store(mean_ptr + c, mean, mask=ok)
    tl.store(rstd_ptr + c, tl.rsqrt(var + eps), mask=ok)
    if TRACKS:
        share = momentum
        if CUMULATIVE:
            share = 1.0 / tl.load(count_ptr).to(tl.float32)
        unbiased = var * (rows / tl.maximum(rows - 1, 1).to(tl.float32))
        old_mean = tl.load(running_mean_ptr + c, mask=ok, other=0.0).to(tl.float32)
        old_var = tl.load(running_var_ptr + c, mask=ok, other=0.0).to(tl.float32)
        new_mean = (1.0 - share) * old_mean + share * mean
        new_var = (1.0 - share) * old_var + share * unbiased
        tl.store(running_mean_ptr + c, new_mean.to(running_mean_ptr.dtype.element_ty), mask=ok)
        tl.store(running_var_ptr + c, new_var.to(running_var_ptr.dtype.element_ty), mask=ok)
    if COUNTS:
        first = tl.program_id(0) == 0
        tl.store(count_ptr, tl.load(count_ptr) + 1, mask=first)


@kernel(do_not_specialize=SIZES)
def batch_standardise(
    x_ptr,
    mean_ptr,
    rstd_ptr,
    xhat_ptr,
    rows,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``xhat = (x - mean) rstd`` with one mean and one rstd for each channel."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    mean = tl.load(mean_ptr + c, mask=c < C, other=0.0)
    rstd = tl.load(rstd_ptr + c, mask=c < C, other=0.0)
    xhat = (x - mean[None, :]) * rstd[None, :]
    tl.store(xhat_ptr + at, xhat.to(xhat_ptr.dtype.element_ty), mask=ok)


@kernel(['HAS_STREAM'], do_not_specialize=SIZES)
def batch_standardise_grad(
    grad_ptr,
    xhat_ptr,
    rstd_ptr,
    scale_ptr,
    sums_ptr,
    stream_ptr,
    x_grad_ptr,
    rows,
    C: tl.constexpr,
    HAS_STREAM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``stream + rstd (grad - mean(grad) - xhat mean(grad xhat))``, the means over all rows.

    They are ``scale sums_1 / N`` and ``scale sums_0 / N``, where ``sums_2C`` are the gradients of
    the scale and the shift that were folded into the product after the norm.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at, ok = tile(n, c, rows, C)
    grad = tl.load(grad_ptr + at, mask=ok, other=0.0).to(tl.float32)
    xhat = tl.load(xhat_ptr + at, mask=ok, other=0.0).to(tl.float32)
    rstd = tl.load(rstd_ptr + c, mask=c < C, other=0.0)
    share = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32) / rows
    mean_grad = share * tl.load(sums_ptr + C + c, mask=c < C, other=0.0)
    mean_both = share * tl.load(sums_ptr + c, mask=c < C, other=0.0)
    total = rstd[None, :] * (grad - mean_grad[None, :] - xhat * mean_both[None, :])
    if HAS_STREAM:
        total += tl.load(stream_ptr + at, mask=ok, other=0.0).to(tl.float32)
    tl.store(x_grad_ptr + at, total.to(x_grad_ptr.dtype.element_ty), mask=ok)
