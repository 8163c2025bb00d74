# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of the depthwise convolution on channels-last maps.

A lane (row of a tile) owns a patch of ``PATCH_H`` x ``PATCH_W`` positions of one frame, whose sums
stay in registers: each input value is read once per time tap and used by every tap and position
of the patch that need it, each tap is read once and used by the whole patch. The columns of a tile
are neighbouring channels, so every access is contiguous. A program holds lanes of successive
frames of one place, which share their input frames in the first-level cache. An image is a clip of
one frame. Nothing passes through shared memory, except sums over lanes.

Offsets within a frame are 32-bit, those of frames 64-bit. ``C`` and the taps are compile-time
constants, the size of the map is not: another image size compiles nothing.

Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``, ``C`` channels, ``K`` kernel weights.
"""

# The kernel language has no unpacking of tuples.
# ruff: noqa: RUF005

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Constants, float32, kernel, processors
from .tiles import FORWARD, WEIGHT_GRAD, Tile, tile_for

# Parts of the weight gradient: enough programs to fill a GPU a few times over, few enough that
# adding them up stays small.
PROGRAMS_PER_PROCESSOR = 4
SUM_BLOCK = {'BLOCK_K': 4, 'BLOCK_C': 32}
# Specialising on these would compile anew for sizes of 1 and multiples of 16.
SIZES = ['lanes', 'lanes_per_part', 'parts', 'T', 'H', 'W', 'patches_h', 'patches_w']


@triton.jit
def _zeros(COUNT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.zeros((BLOCK_P, BLOCK_C), tl.float32),)
    return values


@triton.jit
def _place(lane, T, patches_h, patches_w, PATCH_H: tl.constexpr, PATCH_W: tl.constexpr):
    """Sample, frame, and first row and column of a lane's patch; frames vary fastest."""
    t = lane % T
    place = lane // T
    w = place % patches_w * PATCH_W
    place = place // patches_w
    return place // patches_h, t, place % patches_h * PATCH_H, w


@triton.jit
def _load_row(row_ptr, w, W, ok, C: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Positions ``w + FIRST`` and on of one row as float32, zero outside of the map."""
    values = ()
    for column in tl.static_range(COUNT):
        # A patch begins inside of the map, so one comparison per side is enough.
        inside = ok
        if column + FIRST < 0:
            inside = ok & (w >= -(column + FIRST))
        if column + FIRST > 0:
            inside = ok & (w < W - (column + FIRST))
        value = tl.load(row_ptr + (column + FIRST) * C, mask=inside, other=0.0)
        values = values + (value.to(tl.float32),)
    return values


@kernel(['HAS_BIAS', 'RESIDUAL', 'REVERSED', 'COPY'], do_not_specialize=SIZES)
def convolve(
    x_ptr,
    taps_ptr,
    bias_ptr,
    y_ptr,
    copy_ptr,
    lanes,
    T,
    H,
    W,
    patches_h,
    patches_w,
    C: tl.constexpr,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    REVERSED: tl.constexpr,
    COPY: tl.constexpr,
    PATCH_H: tl.constexpr,
    PATCH_W: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``y[p] = bias + sum over k of taps[k] x[p + k]`` (+ x[p]); ``x_BTHWC``, ``taps_KC``.

    ``REVERSED`` reads the taps from the last to the first, which is the input gradient. ``COPY``
    also stores the input (``'x'``) or the result (``'y'``) in the dtype of another map.
    """
    lane = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    b, t, h, w = _place(lane, T, patches_h, patches_w, PATCH_H, PATCH_W)
    ok = (lane < lanes) & (c < C)
    plane = H * W * C
    at = (h * W + w) * C + c
    frame = (b.to(tl.int64) * T + t) * plane
    tap_at = c + tl.zeros_like(at)

    acc = _zeros(PATCH_H * PATCH_W, BLOCK_P, BLOCK_C)
    for kt in range(KT):
        source = t + kt - KT // 2
        frame_ok = ok & (source >= 0) & (source < T)
        frame_ptr = x_ptr + (frame + (kt - KT // 2) * plane.to(tl.int64)) + at
        for r in tl.static_range(PATCH_H + KH - 1):
            row_ok = frame_ok & (h >= KH // 2 - r) & (h < H + KH // 2 - r)
            row_ptr = frame_ptr + (r - KH // 2) * (W * C)
            row = _load_row(row_ptr, w, W, row_ok, C, -(KW // 2), PATCH_W + KW - 1)
            if COPY == 'x' and (r >= KH // 2 and r < KH // 2 + PATCH_H):
                own_ptr = copy_ptr + frame + at + (r - KH // 2) * (W * C)
                for j in tl.static_range(PATCH_W):
                    own = row[j + KW // 2].to(copy_ptr.dtype.element_ty)
                    own_ok = row_ok & (w + j < W) & (kt == KT // 2)
                    tl.store(own_ptr + j * C, own, mask=own_ok)
            for i in tl.static_range(PATCH_H):
                if r - i >= 0 and r - i < KH:
                    for kw in tl.static_range(KW):
                        k = (kt * KH + (r - i)) * KW + kw
                        if REVERSED:
                            k = KT * KH * KW - 1 - k
                        tap = tl.load(taps_ptr + k * C + tap_at, mask=ok, other=0.0)
                        tap = tap.to(tl.float32)
                        if RESIDUAL and (r - i == KH // 2 and kw == KW // 2):
                            tap += tl.where(kt == KT // 2, 1.0, 0.0)
                        sums = ()
                        for j in tl.static_range(PATCH_W):
                            sums = sums + (acc[i * PATCH_W + j] + row[j + kw] * tap,)
                        acc = acc[: i * PATCH_W] + sums + acc[(i + 1) * PATCH_W :]

    if HAS_BIAS:
        bias = tl.load(bias_ptr + tap_at, mask=ok, other=0.0).to(tl.float32)
    else:
        bias = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for i in tl.static_range(PATCH_H):
        for j in tl.static_range(PATCH_W):
            inside = ok & (h + i < H) & (w + j < W)
            value = acc[i * PATCH_W + j] + bias
            offset = frame + at + (i * W * C + j * C)
            tl.store(y_ptr + offset, value.to(y_ptr.dtype.element_ty), mask=inside)
            if COPY == 'y':
                tl.store(copy_ptr + offset, value.to(copy_ptr.dtype.element_ty), mask=inside)


@kernel(do_not_specialize=SIZES)
def weight_grad_parts(
    grad_ptr,
    x_ptr,
    parts_ptr,
    lanes,
    lanes_per_part,
    T,
    H,
    W,
    patches_h,
    patches_w,
    C: tl.constexpr,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PATCH_H: tl.constexpr,
    PATCH_W: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One part of ``sum over p of grad[p] x[p + k]`` for the taps of one time tap.

    ``parts_PKC`` has one row more than taps: the sum of the gradient, which is the bias's.
    """
    part = tl.program_id(0)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    kt = tl.program_id(2)
    plane = H * W * C

    acc = _zeros(KH * KW, BLOCK_P, BLOCK_C)
    bias = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    first = part * lanes_per_part
    for start in range(first, min(first + lanes_per_part, lanes), BLOCK_P):
        lane = (start + tl.arange(0, BLOCK_P))[:, None]
        b, t, h, w = _place(lane, T, patches_h, patches_w, PATCH_H, PATCH_W)
        source = t + kt - KT // 2
        ok = (lane < lanes) & (c < C) & (source >= 0) & (source < T)
        at = (h * W + w) * C + c
        frame = (b.to(tl.int64) * T + t) * plane
        grad_at = grad_ptr + frame + at
        x_at = x_ptr + (frame + (kt - KT // 2) * plane.to(tl.int64)) + at

        grad = ()
        for i in tl.static_range(PATCH_H):
            grad = grad + _load_row(grad_at + i * (W * C), w, W, ok & (h + i < H), C, 0, PATCH_W)
        for n in tl.static_range(PATCH_H * PATCH_W):
            bias += grad[n]
        for r in tl.static_range(PATCH_H + KH - 1):
            row_ok = ok & (h >= KH // 2 - r) & (h < H + KH // 2 - r)
            row_ptr = x_at + (r - KH // 2) * (W * C)
            row = _load_row(row_ptr, w, W, row_ok, C, -(KW // 2), PATCH_W + KW - 1)
            for kh in tl.static_range(KH):
                if r - kh >= 0 and r - kh < PATCH_H:
                    sums = ()
                    for kw in tl.static_range(KW):
                        total = acc[kh * KW + kw]
                        for j in tl.static_range(PATCH_W):
                            total += grad[(r - kh) * PATCH_W + j] * row[j + kw]
                        sums = sums + (total,)
                    acc = acc[: kh * KW] + sums + acc[(kh + 1) * KW :]

    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row_ptr = parts_ptr + part.to(tl.int64) * (KT * KH * KW + 1) * C + c
    for k in tl.static_range(KH * KW):
        tl.store(row_ptr + (kt * KH * KW + k) * C, tl.sum(acc[k], axis=0), mask=c < C)
    # Only the middle time tap pairs every frame with itself, so only there no gradient is masked.
    is_middle = kt == KT // 2
    tl.store(row_ptr + KT * KH * KW * C, tl.sum(bias, axis=0), mask=(c < C) & is_middle)


@kernel(do_not_specialize=SIZES)
def sum_parts(
    parts_ptr,
    taps_ptr,
    bias_ptr,
    parts,
    C: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Adds ``parts_PKC`` in order into ``taps_CK`` and, from the last row, ``bias_C``."""
    k = (tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K))[:, None]
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    ok = (k <= K) & (c < C)
    total = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    part_ptr = parts_ptr + (k * C + c)
    for _ in range(parts):
        total += tl.load(part_ptr, mask=ok, other=0.0)
        part_ptr += (K + 1) * C
    tl.store(taps_ptr + c * K + k, total, mask=ok & (k < K))
    tl.store(bias_ptr + c + k * 0, total, mask=ok & (k == K))


@dataclass(frozen=True)
class _Division:
    """How the kernels divide a map.

    Attributes:
        blocks: Programs along the lanes and along the channels.
        block_p: Lanes of a program.
        lanes: Lanes of the map.
        sizes: Of the map and in patches, as both kernels are told.
        constants: Of both kernels.
    """

    blocks: tuple[int, int]
    block_p: int
    lanes: int
    sizes: tuple[int, ...]
    constants: Constants


@functools.cache
def _constants(channels: int, kernel: tuple[int, ...], tile: Tile) -> Constants:
    """What does not depend on the size of the map."""
    KT, KH, KW = (1,) * (3 - len(kernel)) + tuple(kernel)
    block_p, block_c = tile.block(channels)
    return Constants(
        C=channels,
        KT=KT,
        KH=KH,
        KW=KW,
        PATCH_H=tile.patch_h,
        PATCH_W=tile.patch_w,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        num_warps=tile.warps,
        num_stages=1,
    )


@functools.cache
def _sum_constants(channels: int, taps: int) -> Constants:
    return Constants(C=channels, K=taps, **SUM_BLOCK)


@functools.lru_cache(maxsize=1024)
def _divide(shape: torch.Size, kernel: tuple[int, ...], tile: Tile) -> _Division:
    """Remembered for each size: working it out takes the host as long as a launch."""
    # An image is a clip of one frame.
    B, *S, C = shape
    T, H, W = (1,) * (3 - len(S)) + tuple(S)
    patches_h, patches_w = -(-H // tile.patch_h), -(-W // tile.patch_w)
    lanes = B * T * patches_h * patches_w
    block_p, block_c = tile.block(C)
    blocks = -(-lanes // block_p), -(-C // block_c)
    sizes = T, H, W, patches_h, patches_w
    return _Division(blocks, block_p, lanes, sizes, _constants(C, kernel, tile))


def _convolve(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: bool,
    reverse: bool,
    tile: Tile | None,
    taps_KC: Tensor | None,
    copy: str = '',
    copy_BSC: Tensor | None = None,
) -> Tensor:
    x_BSC = x_BSC.contiguous()
    y_BSC = torch.empty_like(x_BSC)
    if not x_BSC.numel():
        return y_BSC
    channels, kernel = weight.shape[0], tuple(weight.shape[2:])
    if taps_KC is None:
        taps_KC = weight.reshape(channels, -1).t().contiguous()
    tile = tile or tile_for(FORWARD, x_BSC.device, kernel, channels, x_BSC.dtype)
    division = _divide(x_BSC.shape, kernel, tile)
    bias_C, copy_BSC = taps_KC if bias is None else bias, copy_BSC if copy else y_BSC
    convolve(
        division.blocks,
        (x_BSC, taps_KC, bias_C, y_BSC, copy_BSC),
        (division.lanes, *division.sizes),
        division.constants,
        (bias is not None, residual, reverse, copy),
    )
    return y_BSC


def forward(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: bool,
    tile: Tile | None = None,
    taps_KC: Tensor | None = None,
) -> Tensor:
    """Convolve. Shape: ``x_BSC -> y_BSC``, contiguous, in the dtype of the input.

    ``taps_KC`` is the transposed weight where it exists, here and below.
    """
    return _convolve(x_BSC, weight, bias, residual, False, tile, taps_KC)


def forward_and_copy(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    copy: str,
    dtype: torch.dtype,
    taps_KC: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``x + conv(x)``, and the input (``copy='x'``) or result (``'y'``) in another dtype."""
    x_BSC = x_BSC.contiguous()
    copy_BSC = torch.empty_like(x_BSC, dtype=dtype)
    y_BSC = _convolve(x_BSC, weight, bias, True, False, None, taps_KC, copy, copy_BSC)
    return y_BSC, copy_BSC


def input_grad(
    grad_BSC: Tensor, weight: Tensor, residual: bool, taps_KC: Tensor | None = None
) -> Tensor:
    """Gradient of the input. Shape: ``grad_BSC -> grad_BSC``."""
    return _convolve(grad_BSC, weight, None, residual, True, None, taps_KC)


def weight_grad(
    grad_BSC: Tensor, x_BSC: Tensor, kernel: tuple[int, ...], tile: Tile | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of taps ``(C, 1, *k)`` and bias ``(C,)`` in float32, added in a fixed order."""
    grad_BSC, x_BSC = grad_BSC.contiguous(), x_BSC.contiguous()
    channels, taps = x_BSC.shape[-1], math.prod(kernel)
    tile = tile or tile_for(WEIGHT_GRAD, x_BSC.device, kernel, channels, x_BSC.dtype)
    division = _divide(x_BSC.shape, kernel, tile)
    (blocks_p, blocks_c), frames = division.blocks, division.constants['KT']

    programs = PROGRAMS_PER_PROCESSOR * processors(x_BSC.device)
    parts = max(1, min(blocks_p, programs // (blocks_c * frames)))
    blocks_per_part = max(1, -(-blocks_p // parts))
    parts = -(-blocks_p // blocks_per_part)

    parts_PKC = float32(x_BSC, parts, taps + 1, channels)
    taps_grad, bias_grad = float32(x_BSC, channels, 1, *kernel), float32(x_BSC, channels)
    if parts:
        weight_grad_parts(
            (parts, blocks_c, frames),
            (grad_BSC, x_BSC, parts_PKC),
            (division.lanes, blocks_per_part * division.block_p, *division.sizes),
            division.constants,
        )
    block_k, block_c = SUM_BLOCK['BLOCK_K'], SUM_BLOCK['BLOCK_C']
    sum_parts(
        (-(-(taps + 1) // block_k), -(-channels // block_c)),
        (parts_PKC, taps_grad, bias_grad),
        (parts,),
        _sum_constants(channels, taps),
    )
    return taps_grad, bias_grad
