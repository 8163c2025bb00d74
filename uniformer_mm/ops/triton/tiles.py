# SPDX-License-Identifier: Apache-2.0
"""Tile sizes of the depthwise kernels: a table, and what tuning on this machine found.

A tile gives each lane a patch of ``patch_h`` x ``patch_w`` positions and each thread of ``warps``
x 32 a vector of ``vector`` channels of one lane; a program covers ``block_c`` channels. More patch
means fewer reads per product and more registers. The table is chosen for Hopper from the compiled
code (``tools/kernel_assembly.py``: registers, spills, share of multiply-adds), not from timings;
other architectures take the same rows unless they have their own. Tuning replaces rows by measured
ones and happens only where asked for: ``tools/benchmark_ops.py --tune``.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from ..cache import cache_folder

WARP = 32
MAX_BLOCK_C = 64
CACHE_VERSION = 1


class Tile(NamedTuple):
    """One row of the table.

    Attributes:
        patch_h: Rows of a lane's patch.
        patch_w: Columns of a lane's patch.
        vector: Channels of a thread.
        warps: Warps of a program.
    """

    patch_h: int
    patch_w: int
    vector: int
    warps: int

    def block(self, channels: int) -> tuple[int, int]:
        """Lanes and channels of a program: full vectors, as little padding as possible."""
        values = self.vector * self.warps * WARP
        sizes = (size for size in (64, 32, 16, 8) if size <= min(MAX_BLOCK_C, values))
        block_c = min(sizes, key=lambda size: (-(-channels // size) * size, -size))
        return values // block_c, block_c


FORWARD, WEIGHT_GRAD = 'forward', 'weight_grad'
ANY = None
# (operation, compute capability, widest tap row, bytes of an element): the first match counts.
TABLE: tuple[tuple[str, tuple[int, int] | None, int, int | None, Tile], ...] = (
    (FORWARD, ANY, 3, ANY, Tile(2, 7, 4, 4)),
    (FORWARD, ANY, 5, ANY, Tile(2, 7, 4, 4)),
    (FORWARD, ANY, 9, ANY, Tile(2, 4, 2, 4)),
    (WEIGHT_GRAD, ANY, 3, ANY, Tile(2, 7, 4, 4)),
    (WEIGHT_GRAD, ANY, 5, ANY, Tile(4, 4, 2, 4)),
    (WEIGHT_GRAD, ANY, 9, ANY, Tile(2, 2, 1, 4)),
)


def cache_file(device_name: str) -> Path:
    """Where tuned tiles of a device are kept."""
    return cache_folder() / f'tiles_{"_".join(device_name.split())}.json'


def key(operation: str, kernel: tuple[int, ...], channels: int, dtype: torch.dtype) -> str:
    """Name of a tuned row, such as ``forward 5x5x5 64 bfloat16``."""
    return f'{operation} {"x".join(map(str, kernel))} {channels} {str(dtype).split(".")[1]}'


def load_tuned(device_name: str) -> dict[str, Tile]:
    """Tuned rows of a device; empty where none were tuned.

    Raises:
        ValueError: The file is not what :func:`save_tuned` writes.
    """
    path = cache_file(device_name)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        if content['version'] != CACHE_VERSION:
            return {}
        return {name: Tile(**row) for name, row in content['tiles'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} does not hold tuned tiles ({error}); delete it, or tune again with '
            'tools/benchmark_ops.py --tune.'
        ) from error


def save_tuned(device_name: str, tiles: dict[str, Tile]) -> Path:
    """Add rows to the file of a device; rows of the same name are replaced."""
    path = cache_file(device_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: tile._asdict() for name, tile in (load_tuned(device_name) | tiles).items()}
    with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False) as file:
        json.dump({'version': CACHE_VERSION, 'tiles': rows}, file, indent=1)
    os.replace(file.name, path)
    tile_for.cache_clear()
    return path


def default_tile(
    operation: str, capability: tuple[int, int] | None, kernel: tuple[int, ...], itemsize: int
) -> Tile:
    """The row of :data:`TABLE` for an operation on an architecture."""
    for name, arch, widest, width, tile in TABLE:
        if (
            name == operation
            and arch in (ANY, capability)
            and max(kernel[-2:]) <= widest
            and width in (ANY, itemsize)
        ):
            return tile
    # Long, thin kernels: the smallest patch.
    return Tile(1, 1, 1, 4)


@functools.cache
def tile_for(
    operation: str,
    device: torch.device,
    kernel: tuple[int, ...],
    channels: int,
    dtype: torch.dtype,
) -> Tile:
    """The tile that runs: tuned on this device, else from the table."""
    if device.type != 'cuda':
        return default_tile(operation, None, kernel, dtype.itemsize)
    tuned = load_tuned(torch.cuda.get_device_name(device))
    found = tuned.get(key(operation, kernel, channels, dtype))
    capability = torch.cuda.get_device_capability(device)
    return found or default_tile(operation, capability, kernel, dtype.itemsize)
