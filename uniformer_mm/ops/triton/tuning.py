# SPDX-License-Identifier: Apache-2.0
"""Measures which tile of the depthwise kernels is fastest on this GPU and keeps the answer.

Only ever runs when called (``tools/benchmark_ops.py --tune``): never at import, never in a
training step. The result is used by every later process on the same kind of GPU.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..torch import depthwise as plain
from .tiles import FORWARD, WEIGHT_GRAD, Tile, default_tile, key, save_tuned

PATCHES = ((1, 4), (1, 7), (1, 8), (2, 4), (2, 7), (2, 8), (4, 4), (4, 7), (7, 7))
THREADS = ((2, 4), (4, 4), (8, 4), (2, 8), (4, 8), (4, 2))
# A thread has 255 registers; its sums must leave room for what is read.
MAX_SUMS = 128
# Of a result, relative to the largest value in it.
MAX_ERROR = 1e-2


def candidates(operation: str, kernel: tuple[int, ...]) -> list[Tile]:
    """Tiles whose sums fit in registers."""
    tiles = [Tile(*patch, *threads) for patch in PATCHES for threads in THREADS]
    taps = kernel[-1] * kernel[-2]
    kept = {
        FORWARD: lambda tile: tile.patch_h * tile.patch_w,
        WEIGHT_GRAD: lambda tile: tile.patch_h * tile.patch_w + taps,
    }[operation]
    return [tile for tile in tiles if kept(tile) * tile.vector <= MAX_SUMS]


def _milliseconds(call: Callable[[], Any]) -> float:
    from triton.testing import do_bench

    return do_bench(call, return_mode='median')


def _checked_milliseconds(
    call: Callable[[], Tensor], expected: Tensor, measure: Callable[[Callable[[], Any]], float]
) -> float:
    """Time of a call.

    Raises:
        RuntimeError: Its result is wrong.
    """
    difference = (call().double() - expected).abs().max() / expected.abs().max()
    # Another order of sums moves the last bits; a wrong tile moves everything.
    if not difference <= MAX_ERROR:
        raise RuntimeError(f'its result is off by {float(difference):.1e} of the largest value')
    return measure(call)


def tune(
    operation: str,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    dtype: torch.dtype,
    *,
    device: str = 'cuda',
    measure: Callable[[Callable[[], Any]], float] = _milliseconds,
) -> dict[Tile, float]:
    """Time the table's tile and every candidate on random data and keep the fastest right one.

    A tile that cannot be compiled or launched, or whose result is not PyTorch's, is left out
    with a warning.

    Args:
        operation: ``'forward'`` (also used by the input gradient) or ``'weight_grad'``.
        shape: Channels-last shape of the map.
        kernel: Extent of the taps per axis.
        dtype: Of the map.
        device: The GPU.
        measure: Gives the milliseconds of a call.

    Returns:
        Milliseconds of each tile that ran and was right, fastest first.

    Raises:
        ValueError: There is no GPU, or the operation is not known.
        RuntimeError: No tile ran and was right.
    """
    if operation not in (FORWARD, WEIGHT_GRAD):
        raise ValueError(
            f'operation={operation!r} is not known; use {FORWARD!r} or {WEIGHT_GRAD!r}.'
        )
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('tune needs a GPU; without one the tiles of the table are used.')
    from triton.errors import TritonError

    from . import depthwise

    draw = torch.Generator(device).manual_seed(0)
    random = {'generator': draw, 'device': device}
    x_BSC, grad_BSC = (torch.randn(shape, **random).to(dtype) for _ in range(2))
    weight = torch.randn((shape[-1], 1, *kernel), **random)

    def call(tile: Tile) -> Tensor:
        if operation == FORWARD:
            return depthwise.forward(x_BSC, weight, None, True, tile)
        return depthwise.weight_grad(grad_BSC, x_BSC, kernel, tile)[0]

    if operation == FORWARD:
        expected = plain.forward(x_BSC.float(), weight, None, True)
    else:
        expected = plain.weight_grad(grad_BSC.float(), x_BSC.float(), kernel)[0]
    expected = expected.double()
    capability = torch.cuda.get_device_capability(device) if device == 'cuda' else None
    default = default_tile(operation, capability, kernel, dtype.itemsize)
    times: dict[Tile, float] = {}
    for tile in dict.fromkeys((default, *candidates(operation, kernel))):
        try:
            times[tile] = _checked_milliseconds(functools.partial(call, tile), expected, measure)
        except (TritonError, RuntimeError) as error:
            logging.getLogger(__name__).warning(
                '%s of kernel %s and map %s in %s: %s is left out: %s',
                *(operation, kernel, shape, dtype, tile, error),
            )
    if not times:
        raise RuntimeError(
            f'no tile of {operation} for kernel {kernel} and map {shape} in {dtype} ran and was '
            'right; the warnings say why. Nothing was kept.'
        )
    times = dict(sorted(times.items(), key=lambda item: item[1]))
    name = torch.cuda.get_device_name(device) if device == 'cuda' else device
    save_tuned(name, {key(operation, kernel, shape[-1], dtype): next(iter(times))})
    return times
