# SPDX-License-Identifier: Apache-2.0
"""How the row-wise kernels divide a map: it depends on its size and the device, and is remembered.

Shapes: ``N`` rows, ``C`` channels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .launch import Constants, power_of_two, processors

# Elements of a tile: 16 for each of 128 threads.
TILE = 2048
WARPS = {'num_warps': 4}
# Parts of a sum over rows: enough programs to fill a GPU, few enough that adding them up is small.
PROGRAMS_PER_PROCESSOR = 8
JOIN_TILE = 2048
MAX_JOIN_BLOCK_P = 128


def block_of_channels(channels: int) -> int:
    """As many channels as possible with as little padding as possible."""
    return min((64, 32, 16, 8), key=lambda size: (-(-channels // size) * size, -size))


@dataclass(frozen=True)
class Division:
    """How the kernels divide the rows of a map.

    Attributes:
        tiles: Grid of one program for each tile.
        block: Constants of a kernel that takes a tile: its size, the channels, and warps.
        parts: Grid of the programs that sum over rows.
        rows_per_part: Rows that one of them sums.
        join_grid: Grid that joins the parts.
        join_block: Its tile.
    """

    tiles: tuple[int, int]
    block: Constants
    parts: tuple[int, int]
    rows_per_part: int
    join_grid: tuple[int]
    join_block: Constants


@functools.cache
def constants(**values: int) -> Constants:
    """Compile-time constants and the usual number of warps; the same object for the same values."""
    return Constants(values, **WARPS)


def join(parts: int, channels: int) -> tuple[tuple[int], Constants]:
    """Few channels and many parts in a program: the loop over parts is what takes time."""
    # The same program for any number of parts that needs a loop.
    block_p = MAX_JOIN_BLOCK_P if parts > 8 else 8
    block_c = JOIN_TILE // MAX_JOIN_BLOCK_P
    return (-(-channels // block_c),), constants(C=channels, BLOCK_P=block_p, BLOCK_C=block_c)


@functools.lru_cache(maxsize=4096)
def divide(rows: int, channels: int, device: torch.device) -> Division:
    """How kernels divide a map of this size."""
    block_c = block_of_channels(channels)
    block_n = TILE // block_c
    tiles, blocks_c = -(-rows // block_n), -(-channels // block_c)
    programs = PROGRAMS_PER_PROCESSOR * processors(device)
    parts = max(1, min(tiles, programs // blocks_c))
    rows_per_part = max(1, -(-tiles // parts)) * block_n
    parts = -(-rows // rows_per_part)
    return Division(
        (tiles, blocks_c),
        constants(C=channels, BLOCK_N=block_n, BLOCK_C=block_c),
        (parts, blocks_c),
        rows_per_part,
        *join(parts, channels),
    )


@functools.lru_cache(maxsize=4096)
def whole_rows(rows: int, channels: int) -> tuple[tuple[int], Constants]:
    """Grid and tile of a kernel whose programs hold whole rows."""
    block_c = power_of_two(channels)
    block_n = max(1, TILE // block_c)
    return (-(-rows // block_n),), constants(C=channels, BLOCK_N=block_n, BLOCK_C=block_c)


def like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised memory of the shape of ``x``."""
    # Not from a shape: PyTorch takes twice as long to read one.
    return torch.empty_like(x, dtype=dtype)
