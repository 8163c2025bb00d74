#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""What the Triton kernels compile to on a GPU that need not be there.

    python tools/kernel_assembly.py                  # the convolutions of UniFormer-S, Hopper
    python tools/kernel_assembly.py --kernel 5 5 5 --channels 64 --tile 4 4 2 8

Calls the real launch code with a driver that compiles and does not launch, disassembles the result
and counts: registers and spills of a thread, shared memory, instructions, multiply-adds among
them, widths of the memory accesses. Run time is not shown: only a GPU can tell
(``tools/benchmark_ops.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

CASES = (
    ((3, 3), 64),
    ((5, 5), 64),
    ((3, 3), 320),
    ((3, 3, 3), 64),
    ((5, 5, 5), 64),
    ((3, 3, 3), 320),
)
OPERATIONS = ('forward', 'weight_grad')


class CompileOnly:
    """The part of a Triton driver that compiling needs."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self) -> object:
        """What to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """A device that nothing is launched on."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """A stream that nothing is launched on."""
        return 0


def compiled_kernels(capability: int, operation: str, kernel, channels, dtype, tile) -> dict:
    """Names and compiled forms of what one call of ``operation`` launches."""
    import triton
    from triton.runtime.jit import JITFunction

    from uniformer_mm.ops import triton_depthwise

    found = {}
    run = JITFunction.run

    def compile_only(self: JITFunction, *args, grid, warmup, **kwargs):
        found[self.__name__] = run(self, *args, grid=grid, warmup=True, **kwargs)

    triton.runtime.driver.set_active(CompileOnly(capability))
    JITFunction.run = compile_only
    x_BSC = torch.zeros((1, *(8,) * len(kernel), channels), dtype=dtype)
    weight = torch.zeros(channels, 1, *kernel)
    try:
        if operation == 'forward':
            triton_depthwise.forward(x_BSC, weight, torch.zeros(channels), True, tile)
        else:
            triton_depthwise.weight_grad(x_BSC, x_BSC, kernel, tile)
    finally:
        JITFunction.run = run
    return found


def tool(name: str) -> Path:
    """A program of the CUDA toolkit that comes with Triton."""
    import triton

    path = Path(triton.__file__).parent / 'backends/nvidia/bin' / name
    if not path.exists():
        raise SystemExit(f'{name} does not come with this build of triton; install CUDA’s.')
    return path


def count(cubin: bytes) -> dict:
    """Resources and instructions of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        run = {'capture_output': True, 'text': True, 'check': True}
        usage = subprocess.run([tool('cuobjdump'), '-res-usage', file.name], **run).stdout
        listing = subprocess.run([tool('nvdisasm'), '-c', file.name], **run).stdout
    registers, stack, shared, local = (
        int(re.search(rf'{name}:(\d+)', usage).group(1))
        for name in ('REG', 'STACK', 'SHARED', 'LOCAL')
    )
    pattern = r'^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)'
    names = Counter(re.findall(pattern, listing, flags=re.MULTILINE))
    return {
        'registers': registers,
        'spilled': sum(n for name, n in names.items() if name.startswith(('LDL', 'STL'))),
        'stack': stack + local,
        'shared': shared,
        'instructions': names.total() - names['NOP'],
        'multiply_adds': names['FFMA'],
        'accesses': {
            name: n for name, n in sorted(names.items()) if name.startswith(('LDG', 'STG'))
        },
    }


def multiply_adds_of_a_tile(operation: str, kernel: tuple[int, ...], tile) -> int:
    """Multiply-adds of a thread for one time tap, by arithmetic."""
    return tile.patch_h * tile.patch_w * math.prod(kernel[-2:]) * tile.vector


def survey(args: argparse.Namespace) -> list[dict]:
    """One row for each operation and case."""
    from uniformer_mm.ops.tiles import Tile, default_tile

    cases = [(tuple(args.kernel), args.channels)] if args.kernel else CASES
    dtype = getattr(torch, args.dtype)
    rows = []
    for operation in args.operations:
        for kernel, channels in cases:
            tile = Tile(*args.tile) if args.tile else None
            kernels = compiled_kernels(args.capability, operation, kernel, channels, dtype, tile)
            name = {'forward': 'convolve', 'weight_grad': 'weight_grad_parts'}[operation]
            used = tile or default_tile(operation, None, kernel, dtype.itemsize)
            rows.append(
                {
                    'operation': operation,
                    'kernel': list(kernel),
                    'channels': channels,
                    'dtype': args.dtype,
                    'tile': list(vars(used).values()),
                    'multiply_adds_needed': multiply_adds_of_a_tile(operation, kernel, used),
                    **count(kernels[name].asm['cubin']),
                }
            )
    return rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--capability', type=int, default=90, help='90 is Hopper')
    parser.add_argument('--operations', nargs='+', choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument('--kernel', type=int, nargs='+', help='extents; default: UniFormer-S')
    parser.add_argument('--channels', type=int, default=64)
    parser.add_argument('--dtype', choices=('bfloat16', 'float16', 'float32'), default='bfloat16')
    parser.add_argument('--tile', type=int, nargs=4, metavar=('ROWS', 'COLUMNS', 'VECTOR', 'WARPS'))
    parser.add_argument('--json', action='store_true', help='print rows as JSON')
    return parser.parse_args(arguments)


def main() -> None:
    """Print the table."""
    args = parse()
    rows = survey(args)
    if args.json:
        print(json.dumps(rows))
        return
    table = Table(*(name.replace('_', ' ') for name in rows[0]))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=220).print(table)


if __name__ == '__main__':
    main()
