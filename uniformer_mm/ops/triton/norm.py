# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and BatchNorm on rows of channels, without their affine parts.

A tile is some rows and some or all channels; every access is contiguous. Statistics, sums and the
arithmetic are float32. BatchNorm's moments are found in two stages, each in a fixed order: a
program follows the mean and the sum of squared deviations (Welford) of its part of the rows, and
one kernel joins the parts. Offsets are 64-bit. ``C`` is a compile-time constant, the number of rows
is not: another image size compiles nothing. Shapes: ``N`` rows, ``C`` channels, ``P`` parts.
Names of the launches as in ``ops/rows.py``.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ..rows import Running
from .grid import divide, like, whole_rows
from .launch import float32, kernel
from .math import moments, standardise_grad, store_pair, tile

# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['rows', 'rows_per_part', 'parts']


@kernel(do_not_specialize=SIZES)
def layer_standardise_kernel(
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
def layer_standardise_grad_kernel(
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
def moments_of_parts_kernel(
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
def join_moments_kernel(
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
    """``mean_C`` and ``rstd_C`` from ``parts_P2C``; updates the running statistics.

    ``COUNTS`` adds 1 to the counter of batches. ``CUMULATIVE`` reads it (already counted) and
    updates by its inverse instead of the momentum.
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
def batch_standardise_kernel(
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
def batch_standardise_grad_kernel(
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
    the scale and the shift that were folded into the matrix after the norm.
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


def layer_standardise(x_NC: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    xhat_NC, rstd_N = like(x_NC, dtype), float32(x_NC, rows)
    grid, block = whole_rows(rows, channels)
    if x_NC.numel():
        layer_standardise_kernel(grid, (x_NC, xhat_NC, rstd_N), (rows, float(eps)), block)
    return xhat_NC, rstd_N


def layer_standardise_grad(
    grad_NC: Tensor, xhat_NC: Tensor, rstd_N: Tensor, stream_NC: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """See ``ops/rows.py``."""
    grad_NC, xhat_NC = grad_NC.contiguous(), xhat_NC.contiguous()
    has_stream = stream_NC is not None
    stream_NC = stream_NC.contiguous() if has_stream else grad_NC
    rows, channels = grad_NC.shape
    x_grad_NC = like(grad_NC, dtype)
    grid, block = whole_rows(rows, channels)
    if grad_NC.numel():
        tensors = grad_NC, xhat_NC, rstd_N, stream_NC, x_grad_NC
        layer_standardise_grad_kernel(grid, tensors, (rows,), block, (has_stream,))
    return x_grad_NC


def batch_standardise(
    x_NC: Tensor, eps: float, dtype: torch.dtype, running: Running | None
) -> tuple[Tensor, Tensor]:
    """See ``ops/rows.py``."""
    x_NC = x_NC.contiguous()
    rows, channels = x_NC.shape
    xhat_NC = like(x_NC, dtype)
    if not x_NC.numel():
        return xhat_NC, torch.zeros(channels, dtype=torch.float32, device=x_NC.device)
    division = divide(rows, channels, x_NC.device)
    parts = division.parts[0]
    parts_P2C = float32(x_NC, parts, 2, channels)
    mean_C, rstd_C = float32(x_NC, channels), float32(x_NC, channels)
    mean, var, count, momentum = running or (mean_C, mean_C, None, 0.0)
    cumulative = momentum is None
    if cumulative:
        # Every program reads the counter, so none of them can count.
        count.add_(1)
    sizes = rows, division.rows_per_part
    moments_of_parts_kernel(division.parts, (x_NC, parts_P2C), sizes, division.block)
    join_moments_kernel(
        division.join_grid,
        (parts_P2C, mean_C, rstd_C, mean, var, mean_C if count is None else count),
        (*sizes, parts, float(eps), 0.0 if cumulative else float(momentum)),
        division.join_block,
        (running is not None, count is not None and not cumulative, cumulative),
    )
    batch_standardise_kernel(
        division.tiles, (x_NC, mean_C, rstd_C, xhat_NC), (rows,), division.block
    )
    if running is not None:
        # What PyTorch's own operators do to tensors that they change. torch 2.4 takes them
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
    """See ``ops/rows.py``."""
    grad_NC, xhat_NC = grad_NC.contiguous(), xhat_NC.contiguous()
    has_stream = stream_NC is not None
    stream_NC = stream_NC.contiguous() if has_stream else grad_NC
    rows, channels = grad_NC.shape
    x_grad_NC = like(grad_NC, dtype)
    if grad_NC.numel():
        division = divide(rows, channels, grad_NC.device)
        sums_2C = affine_grad_2C.contiguous()
        tensors = grad_NC, xhat_NC, rstd_C, scale_C, sums_2C, stream_NC, x_grad_NC
        batch_standardise_grad_kernel(
            division.tiles, tensors, (rows,), division.block, (has_stream,)
        )
    return x_grad_NC
