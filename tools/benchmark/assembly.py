#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""What the Triton kernels compile to on a GPU that need not be there.

    python tools/benchmark/assembly.py                  # the kernels of UniFormer-S, Hopper
    python tools/benchmark/assembly.py --kernel 5 5 5 --channels 64 --tile 4 4 2 8
    python tools/benchmark/assembly.py --operations mlp_forward --channels 56 --hidden 168

Calls the real launch code with a driver that compiles and does not launch, disassembles the result
and counts: registers and spills of a thread, shared memory, programs that a multiprocessor of
Hopper holds at a time, instructions, multiply-adds and tensor-core products among them, widths of
the memory accesses. Run time is not shown: only a GPU can tell (``tools/benchmark/operators.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.drivers import CompileOnly

CASES = (
    ((3, 3), 64),
    ((5, 5), 64),
    ((3, 3), 320),
    ((3, 3, 3), 64),
    ((5, 5, 5), 64),
    ((3, 3, 3), 320),
)
OPERATIONS = ('forward', 'weight_grad')
MLP_OPERATIONS = ('mlp_forward', 'mlp_add', 'mlp_input_grad', 'mlp_weight_grad')
ROW_OPERATIONS = (
    'layer_standardise',
    'layer_standardise_grad',
    'batch_standardise',
    'batch_standardise_grad',
    'fold',
    'fold_grad',
    'column_sum',
    'gelu_grad',
    'add_branch',
    'branch_grad',
)
MLP_CASES = ((64, 256), (128, 512))
ROW_CASES = (64, 128, 320, 512)
ROWS = 512
# What a multiprocessor of Hopper has; each program takes SHARED_PER_PROGRAM bytes beside its own.
REGISTERS, SHARED, SHARED_PER_PROGRAM, MAX_WARPS, MAX_PROGRAMS = 65536, 232448, 1024, 64, 32


def compiled_kernels(capability: int, call: Callable[[], object]) -> dict:
    """Names and compiled forms of what ``call`` launches, on CPU tensors."""
    import triton
    from triton.runtime.jit import JITFunction

    found = {}
    run = JITFunction.run

    def compile_only(self: JITFunction, *args, grid, warmup, **kwargs):
        found[self.__name__] = run(self, *args, grid=grid, warmup=True, **kwargs)

    triton.runtime.driver.set_active(CompileOnly(capability))
    JITFunction.run = compile_only
    try:
        call()
    finally:
        JITFunction.run = run
    return found


def depthwise_call(operation: str, kernel, channels: int, dtype, tile) -> Callable[[], object]:
    """A depthwise convolution or its weight gradient."""
    from uniformer_mm.ops.triton import depthwise

    x_BSC = torch.zeros((1, *(8,) * len(kernel), channels), dtype=dtype)
    weight, bias = torch.zeros(channels, 1, *kernel), torch.zeros(channels)
    if operation == 'forward':
        return lambda: depthwise.forward(x_BSC, weight, bias, True, tile)
    return lambda: depthwise.weight_grad(x_BSC, x_BSC, kernel, tile)


def mlp_calls(channels: int, hidden: int, dtype) -> dict[str, Callable[[], object]]:
    """The MLP and its gradients."""
    from uniformer_mm.ops.triton import mlp

    stream_NC = torch.zeros(ROWS, channels)
    x_NC = stream_NC.to(dtype)
    w_HC, b_H, w_OH, b_O = (
        torch.zeros(size, dtype=dtype)
        for size in ((hidden, channels), hidden, (channels, hidden), channels)
    )
    return {
        'mlp_forward': lambda: mlp.forward(x_NC, w_HC, b_H, w_OH, b_O),
        'mlp_add': lambda: mlp.forward(stream_NC, w_HC, b_H, w_OH, b_O, stream_NC),
        'mlp_input_grad': lambda: mlp.input_grad(x_NC, x_NC, w_HC, b_H, w_OH),
        'mlp_weight_grad': lambda: mlp.weight_grad(x_NC, x_NC, w_HC, b_H, w_OH, True),
    }


def row_calls(channels: int, dtype) -> dict[str, Callable[[], object]]:
    """What stands between the products, on a float32 residual stream."""
    from uniformer_mm.ops.rows import Running
    from uniformer_mm.ops.triton import rows as ops

    stream_NC = torch.zeros(ROWS, channels)
    xhat_NC = stream_NC.to(dtype)
    rstd_N, rstd_C, affine_grad = torch.zeros(ROWS), torch.zeros(channels), torch.zeros(2, channels)
    weight, bias = torch.zeros(4 * channels, channels), torch.zeros(4 * channels)
    running = Running(rstd_C, rstd_C.clone(), torch.tensor(0), 0.1)
    eps = 1e-5
    return {
        'layer_standardise': lambda: ops.layer_standardise(stream_NC, eps, dtype),
        'layer_standardise_grad': lambda: ops.layer_standardise_grad(
            xhat_NC, xhat_NC, rstd_N, stream_NC, torch.float32
        ),
        'batch_standardise': lambda: ops.batch_standardise(stream_NC, eps, dtype, running),
        'batch_standardise_grad': lambda: ops.batch_standardise_grad(
            xhat_NC, xhat_NC, rstd_C, rstd_C, affine_grad, stream_NC, torch.float32
        ),
        'fold': lambda: ops.fold(weight, bias, rstd_C, rstd_C, dtype),
        'fold_grad': lambda: ops.fold_grad(weight, bias, weight, rstd_C, rstd_C),
        'column_sum': lambda: ops.column_sum(xhat_NC),
        'gelu_grad': lambda: ops.gelu_grad(xhat_NC, xhat_NC),
        'add_branch': lambda: ops.add_branch(stream_NC, xhat_NC),
        'branch_grad': lambda: ops.branch_grad(stream_NC, None, dtype),
    }


def tool(name: str) -> Path:
    """A program of the CUDA toolkit that comes with Triton."""
    import triton

    path = Path(triton.__file__).parent / 'backends/nvidia/bin' / name
    if not path.exists():
        raise SystemExit(f'{name} does not come with this build of triton; install CUDA’s.')
    return path


def count(kernel) -> dict:
    """Resources and instructions of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        run = {'capture_output': True, 'text': True, 'check': True}
        usage = subprocess.run([tool('cuobjdump'), '-res-usage', file.name], **run).stdout
        listing = subprocess.run([tool('nvdisasm'), '-c', file.name], **run).stdout
    registers, stack, shared, local = (
        int(re.search(rf'{name}:(\d+)', usage).group(1))
        for name in ('REG', 'STACK', 'SHARED', 'LOCAL')
    )
    shared = max(shared, kernel.metadata.shared)
    warps = kernel.metadata.num_warps
    pattern = r'^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)'
    names = Counter(re.findall(pattern, listing, flags=re.MULTILINE))
    return {
        'registers': registers,
        'spilled': sum(n for name, n in names.items() if name.startswith(('LDL', 'STL'))),
        'stack': stack + local,
        'shared': shared,
        'resident': resident_programs(registers, shared, warps),
        'instructions': names.total() - names['NOP'],
        'multiply_adds': names['FFMA'],
        'products': sum(n for name, n in names.items() if name.startswith(('HGMMA', 'HMMA'))),
        'accesses': {
            name: n for name, n in sorted(names.items()) if name.startswith(('LDG', 'STG'))
        },
    }


def resident_programs(registers: int, shared: int, warps: int) -> int:
    """Programs that a multiprocessor of Hopper holds at a time."""
    per_warp = -(-registers // 8) * 8 * 32
    by_registers = REGISTERS // (per_warp * warps)
    by_shared = SHARED // (shared + SHARED_PER_PROGRAM)
    return min(by_registers, by_shared, MAX_WARPS // warps, MAX_PROGRAMS)


def multiply_adds_of_a_tile(operation: str, kernel: tuple[int, ...], tile) -> int:
    """Multiply-adds of a thread for one time tap, by arithmetic."""
    return tile.patch_h * tile.patch_w * math.prod(kernel[-2:]) * tile.vector


def depthwise_rows(args: argparse.Namespace, operation: str) -> list[dict]:
    """One row for each case of a convolution."""
    from uniformer_mm.ops.triton.tiles import Tile, default_tile

    dtype = getattr(torch, args.dtype)
    rows = []
    for kernel, channels in [(tuple(args.kernel), args.channels or 64)] if args.kernel else CASES:
        tile = Tile(*args.tile) if args.tile else None
        call = depthwise_call(operation, kernel, channels, dtype, tile)
        name = {'forward': 'convolve', 'weight_grad': 'weight_grad_parts'}[operation]
        used = tile or default_tile(operation, None, kernel, dtype.itemsize)
        rows.append(
            {
                'operation': operation,
                'compiled': name,
                'kernel': list(kernel),
                'channels': channels,
                'dtype': args.dtype,
                'tile': list(used),
                'multiply_adds_needed': multiply_adds_of_a_tile(operation, kernel, used),
                **count(compiled_kernels(args.capability, call)[name]),
            }
        )
    return rows


def other_rows(args: argparse.Namespace, operation: str) -> list[dict]:
    """One row for each case and kernel of an MLP or of what stands between products."""
    dtype = getattr(torch, args.dtype)
    is_mlp = operation in MLP_OPERATIONS
    cases = MLP_CASES if is_mlp else [(channels, None) for channels in ROW_CASES]
    if args.channels:
        cases = [(args.channels, args.hidden or 4 * args.channels if is_mlp else None)]
    rows = []
    for channels, hidden in cases:
        calls = mlp_calls(channels, hidden, dtype) if is_mlp else row_calls(channels, dtype)
        sizes = {'channels': channels, **({'hidden': hidden} if is_mlp else {})}
        kernels = compiled_kernels(args.capability, calls[operation])
        about = {'operation': operation, **sizes, 'dtype': args.dtype}
        rows += [{**about, 'compiled': name, **count(k)} for name, k in kernels.items()]
    return rows


def survey(args: argparse.Namespace) -> list[dict]:
    """All rows."""
    rows = []
    for operation in args.operations:
        rows += (depthwise_rows if operation in OPERATIONS else other_rows)(args, operation)
    return rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--capability', type=int, default=90, help='90 is Hopper')
    every = (*OPERATIONS, *MLP_OPERATIONS, *ROW_OPERATIONS)
    parser.add_argument(
        '--operations', nargs='+', choices=every, help='default: all, convolutions with --kernel'
    )
    parser.add_argument('--kernel', type=int, nargs='+', help='extents; default: UniFormer-S')
    parser.add_argument('--channels', type=int, help='default: UniFormer-S; 64 with --kernel')
    parser.add_argument('--hidden', type=int, help='hidden units of the MLP; default: 4 x channels')
    parser.add_argument('--dtype', choices=('bfloat16', 'float16', 'float32'), default='bfloat16')
    parser.add_argument('--tile', type=int, nargs=4, metavar=('ROWS', 'COLUMNS', 'VECTOR', 'WARPS'))
    parser.add_argument('--json', action='store_true', help='print rows as JSON')
    args = parser.parse_args(arguments)
    args.operations = args.operations or (OPERATIONS if args.kernel else every)
    return args


def main() -> None:
    """Print the table."""
    args = parse()
    rows = survey(args)
    if args.json:
        print(json.dumps(rows))
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace('_', ' ') for name in names))
    for row in rows:
        table.add_row(*(str(row.get(name, '')) for name in names))
    Console(width=260).print(table)


if __name__ == '__main__':
    main()
