# SPDX-License-Identifier: Apache-2.0
"""Tile sizes of the MLP kernels: one table, chosen from the compiled code, not from timings.

``tools/kernel_assembly.py`` shows what counted: every matmul in the tensor cores, nothing
spilled, and at least two programs, or 16 warps, on a multiprocessor of Hopper at a time (65,536
registers, 227 KiB of shared memory).
"""

from __future__ import annotations

from dataclasses import dataclass

FORWARD, ADD, INPUT_GRAD, WEIGHT_GRAD = 'forward', 'add', 'input_grad', 'weight_grad'
# The smallest extent of a matmul.
MIN_BLOCK = 16


@dataclass(frozen=True)
class MlpTile:
    """One row of the table.

    Attributes:
        block_n: Rows of a map that a program takes at a time.
        block_h: Hidden units that it takes at a time.
        warps: Warps of a program.
        stages: Chunks of what it reads that are under way at a time.
        programs: Programs that a multiprocessor of Hopper holds at a time.
        registers: What a thread may use at most on Hopper; None leaves it to the compiler.
    """

    block_n: int
    block_h: int
    warps: int
    stages: int
    programs: int
    registers: int | None = None


# (operation, most channels, bytes of an element of the matrices): the first match counts.
TABLE: tuple[tuple[str, int, int, MlpTile], ...] = (
    (FORWARD, 64, 2, MlpTile(128, 64, 8, 3, 2)),
    (FORWARD, 128, 2, MlpTile(128, 32, 8, 2, 2, 128)),
    # The sum with a float32 map takes registers beside the matmuls'.
    (ADD, 64, 2, MlpTile(128, 64, 8, 3, 2, 128)),
    (ADD, 128, 2, MlpTile(64, 32, 4, 2, 2)),
    (INPUT_GRAD, 64, 2, MlpTile(128, 64, 8, 3, 2, 128)),
    (INPUT_GRAD, 128, 2, MlpTile(128, 32, 8, 2, 2, 128)),
    (WEIGHT_GRAD, 64, 2, MlpTile(64, 64, 4, 3, 3, 168)),
    (WEIGHT_GRAD, 128, 2, MlpTile(32, 64, 4, 3, 2)),
    # float32 has no exact matmul in the tensor cores.
    (FORWARD, 128, 4, MlpTile(32, 32, 4, 1, 4)),
    (ADD, 128, 4, MlpTile(32, 32, 4, 1, 4)),
    (INPUT_GRAD, 128, 4, MlpTile(32, 32, 4, 1, 4)),
    (WEIGHT_GRAD, 64, 4, MlpTile(32, 32, 4, 1, 3)),
    (WEIGHT_GRAD, 128, 4, MlpTile(32, 32, 8, 1, 2)),
)


def mlp_tile(operation: str, channels: int, itemsize: int) -> MlpTile:
    """The row of :data:`TABLE` for an operation.

    Args:
        operation: One of the four names above.
        channels: The larger of input and output channels, as many as ``dispatch.py`` allows.
        itemsize: Bytes of an element of the matrices.
    """
    for name, most, width, tile in TABLE:
        if name == operation and channels <= most and width == itemsize:
            return tile
    raise AssertionError((operation, channels, itemsize))
