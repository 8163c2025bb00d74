# SPDX-License-Identifier: Apache-2.0
"""Times networks against the references, side by side, as a table, JSON and a plot.

``python tools/benchmark.py --task image video --dtype float32 bfloat16 --mode inference training``
``python tools/benchmark.py --scale resolution --attention global hybrid --json curve.json``

All variants of a row share one random state and take turns, so that a noisy machine hurts all of
them alike; a time is a median and its quartiles. A variant whose outputs do not equal the
reference's is refused: its row gives the reason instead of a time, and the exit status is 1. Times
stand beside the ceilings of the same run: a large matrix product and a copy. See
``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.benchmarking import plots
from tools.benchmarking.measure import Ceilings, Row, describe, measure, measure_ceilings
from tools.benchmarking.variants import ATTENTIONS, MODES, TASKS, VARIANTS, Work
from uniformer_mm.submission.writing import write_text

SCALES = {
    'resolution': (224, 320, 448, 640, 896, 1280, 1536),
    'frames': (8, 16, 32, 64, 128),
    'batch': (1, 2, 4, 8, 16, 32, 64),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line; lists multiply out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', nargs='+', default=['small'])
    parser.add_argument('--task', nargs='+', choices=TASKS, default=['image'])
    parser.add_argument('--attention', nargs='+', choices=ATTENTIONS, help="default: the task's")
    parser.add_argument(
        '--shape', nargs='+', help='batch x [frames x] height x width, e.g. 8x224x224'
    )
    parser.add_argument('--dtype', nargs='+', choices=('float32', 'bfloat16'), default=['float32'])
    parser.add_argument('--mode', nargs='+', choices=MODES, default=['inference'])
    parser.add_argument('--variant', nargs='+', choices=VARIANTS, default=['official', 'eager'])
    parser.add_argument('--scale', choices=SCALES, help='cost against one size, as curves')
    parser.add_argument('--sizes', nargs='+', type=int, help='other sizes for --scale')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument(
        '--operators', type=int, default=0, metavar='N', help='also list the N slowest operators'
    )
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='CPU only')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='CPU, one thread: time that the process had, for a machine that others use',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--plot', type=Path)
    options = parser.parse_args(arguments)
    if options.processor_time:
        options.threads = 1
    return options


def shape_of(text: str, rank: int) -> tuple[int, ...]:
    """``'8x224x224'`` to ``(8, 224, 224)``; clips have a number of frames after the batch."""
    try:
        shape = tuple(int(part) for part in text.lower().split('x'))
    except ValueError:
        shape = ()
    if len(shape) != rank + 1 or min(shape) < 1:
        form, example = (
            ('batch x height x width', '8x224x224')
            if rank == 2
            else ('batch x frames x height x width', '1x16x224x224')
        )
        raise ValueError(f'--shape {text!r} must be {form}, such as {example}.')
    return shape


def scaled(shape: tuple[int, ...], scale: str, size: int) -> tuple[int, ...]:
    """``shape`` with one of its sizes replaced.

    Raises:
        ValueError: An image has no frames.
    """
    batch, *frames, height, width = shape
    if scale == 'frames' and not frames:
        raise ValueError("--scale frames needs clips; use --task video or 'batch'.")
    return {
        'resolution': (batch, *frames, size, size),
        'frames': (batch, size, height, width),
        'batch': (size, *frames, height, width),
    }[scale]


def works(options: argparse.Namespace) -> list[Work]:
    """Everything the command line asks for, in order."""
    found = []
    for arch in options.arch:
        for name in options.task:
            task = TASKS[name]
            default = task.cuda_shape if options.device.startswith('cuda') else task.cpu_shape
            texts = [shape_of(text, task.rank) for text in options.shape or ()] or [default]
            if options.scale:
                sizes = options.sizes or SCALES[options.scale]
                texts = [scaled(texts[0], options.scale, size) for size in sizes]
            for attention in options.attention or [task.attention]:
                for shape in texts:
                    for dtype in options.dtype:
                        for mode in options.mode:
                            found.append(Work(arch, name, attention, shape, dtype, mode))
    return found


def table(rows: list[Row], title: str) -> Table:
    """The rows as text."""
    result = Table(title=title)
    on_gpu = any(row.busy_ms for row in rows)
    for column in (
        'work',
        'variant',
        'ms (quartiles)',
        *(('host ms', 'busy ms') if on_gpu else ()),
        'x official',
        'memory MiB',
        'of matmul',
        'of copy',
        'error',
    ):
        result.add_column(column, justify='left' if column in ('work', 'variant') else 'right')
    official = {row.work: row.median_ms for row in rows if row.variant == 'official'}
    for row in rows:
        if row.refused:
            result.add_row(str(row.work), row.variant, f'[red]refused: {row.refused}')
            continue
        base = official.get(row.work)
        result.add_row(
            str(row.work),
            row.variant,
            f'{row.median_ms:.1f} ({row.low_ms:.1f} to {row.high_ms:.1f})',
            *((f'{row.host_ms:.1f}', f'{row.busy_ms:.1f}') if on_gpu else ()),
            f'{base / row.median_ms:.2f}' if base else '',
            f'{row.memory_mib:.0f}',
            f'{row.of_matmul:.0%}',
            f'{row.of_copy:.0%}',
            f'{row.error:.1e}',
        )
    return result


def save(rows: list[Row], ceilings: dict[str, Ceilings], options: argparse.Namespace) -> None:
    """Write JSON and plot where asked for."""
    if options.json:
        record = {
            'machine': describe(options.device, options.threads),
            'ceilings': {dtype: asdict(ceiling) for dtype, ceiling in ceilings.items()},
            'rows': [asdict(row) for row in rows],
        }
        write_text(options.json, json.dumps(record, indent=1) + '\n')
    if options.plot:
        if options.scale:
            plots.curves(rows, options.scale, options.plot)
        else:
            plots.bars(rows, options.plot)


def main(arguments: list[str] | None = None) -> int:
    """Measure and report; 1 if a variant was refused."""
    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    torch.set_num_threads(options.threads)
    try:
        asked = works(options)
    except ValueError as error:
        console.print(f'[red]{error}')
        return 2
    clock = time.process_time if options.processor_time else time.perf_counter
    ceilings = {dtype: measure_ceilings(options.device, dtype, clock) for dtype in options.dtype}
    rows = []
    for work in asked:
        console.print(f'{work} ...', style='dim')
        rows += measure(
            work,
            options.variant,
            options.device,
            options.repeats,
            ceilings[work.dtype],
            clock,
            options.operators,
        )
        save(rows, ceilings, options)
    console.print(table(rows, describe(options.device, options.threads)))
    for row in rows:
        if row.operators:
            shares = ', '.join(f'{name} {share:.0%}' for name, share in row.operators.items())
            console.print(f'{row.work}, {row.variant}: {shares}')
    for dtype, ceiling in ceilings.items():
        console.print(
            f'{dtype}: matrix product {ceiling.flops / 1e9:.0f} GFLOP/s, '
            f'copy {ceiling.bytes / 1e9:.1f} GB/s (both directions)'
        )
    return int(any(row.refused for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
