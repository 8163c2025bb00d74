# SPDX-License-Identifier: Apache-2.0
"""Launches of the Triton kernels: shapes, grids and the order of the taps.

Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``, ``C`` channels, ``K`` taps.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .launch import Constants, float32
from .launch import processors as _processors
from .tiles import FORWARD, WEIGHT_GRAD, Tile, tile_for
from .triton_kernels import convolve, sum_parts, weight_grad_parts

# Parts of the weight gradient: enough programs to fill a GPU a few times over, few enough that
# adding them up stays small.
PROGRAMS_PER_PROCESSOR = 4
SUM_BLOCK = {'BLOCK_K': 4, 'BLOCK_C': 32}


@dataclass(frozen=True)
class _Plan:
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
def _plan(shape: torch.Size, kernel: tuple[int, ...], tile: Tile) -> _Plan:
    """Remembered for each size: working it out takes the host as long as a launch."""
    # An image is a clip of one frame.
    B, *S, C = shape
    T, H, W = (1,) * (3 - len(S)) + tuple(S)
    patches_h, patches_w = -(-H // tile.patch_h), -(-W // tile.patch_w)
    lanes = B * T * patches_h * patches_w
    block_p, block_c = tile.block(C)
    blocks = -(-lanes // block_p), -(-C // block_c)
    sizes = T, H, W, patches_h, patches_w
    return _Plan(blocks, block_p, lanes, sizes, _constants(C, kernel, tile))


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
    plan = _plan(x_BSC.shape, kernel, tile)
    bias_C, copy_BSC = taps_KC if bias is None else bias, copy_BSC if copy else y_BSC
    convolve(
        plan.blocks,
        (x_BSC, taps_KC, bias_C, y_BSC, copy_BSC),
        (plan.lanes, *plan.sizes),
        plan.constants,
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
    plan = _plan(x_BSC.shape, kernel, tile)
    (blocks_p, blocks_c), frames = plan.blocks, plan.constants['KT']

    programs = PROGRAMS_PER_PROCESSOR * _processors(x_BSC.device)
    parts = max(1, min(blocks_p, programs // (blocks_c * frames)))
    blocks_per_part = max(1, -(-blocks_p // parts))
    parts = -(-blocks_p // blocks_per_part)

    parts_PKC = float32(x_BSC, parts, taps + 1, channels)
    taps_grad, bias_grad = float32(x_BSC, channels, 1, *kernel), float32(x_BSC, channels)
    if parts:
        weight_grad_parts(
            (parts, blocks_c, frames),
            (grad_BSC, x_BSC, parts_PKC),
            (plan.lanes, blocks_per_part * plan.block_p, *plan.sizes),
            plan.constants,
        )
    block_k, block_c = SUM_BLOCK['BLOCK_K'], SUM_BLOCK['BLOCK_C']
    sum_parts(
        (-(-(taps + 1) // block_k), -(-channels // block_c)),
        (parts_PKC, taps_grad, bias_grad),
        (parts,),
        _sum_constants(channels, taps),
    )
    return taps_grad, bias_grad
