# SPDX-License-Identifier: Apache-2.0
"""Times networks against the references, side by side, as a table, JSON and a plot.

    python tools/benchmark/networks.py --task image video --mode inference training
    python tools/benchmark/networks.py --scale resolution --attention global hybrid

All variants of a row share one random state and take turns, so that a noisy machine hurts all of
them alike; a time is a median and its quartiles. A variant whose outputs, and for training steps
whose outputs in training, statistics and gradients, do not equal the reference's is refused, and so
is one that cannot be built or runs out of memory: its row gives the reason instead of a time, and
the exit status is 1. Times stand beside the rooflines of the same run: a large matrix product and a
copy. See ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark import plots
from tools.benchmark.measure import NO_MEMORY, NO_MEMORY_TO_COMPARE, measure
from tools.benchmark.parity import PARAMETER_GRADIENTS
from tools.benchmark.rows import Row, describe
from tools.benchmark.timing import Roofline, measure_roofline
from tools.benchmark.variants import VARIANTS, is_emulated
from tools.benchmark.workloads import ATTENTIONS, DTYPES, MODES, TASKS, Workload, usual_attention
from uniformer_mm.files import prepare, write_text
from uniformer_mm.models import ARCHS
from uniformer_mm.models.inputs import MIN_SIDE

SCALES = {
    'resolution': (224, 320, 448, 640, 896, 1280, 1536),
    'frames': (8, 16, 32, 64, 128),
    'batch': (1, 2, 4, 8, 16, 32, 64),
}


# Why larger sizes are not tried, by the reason of a smaller one.
NOT_TRIED = {
    NO_MEMORY: f'{NO_MEMORY} at a smaller size',
    NO_MEMORY_TO_COMPARE: 'the reference ran out of memory at a smaller size',
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line; lists multiply out. What it asks for is in ``workloads``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--arch', nargs='+', choices=ARCHS, default=['small'], metavar='ARCH', help=', '.join(ARCHS)
    )
    parser.add_argument('--task', nargs='+', choices=TASKS, default=['image'])
    parser.add_argument(
        '--attention',
        nargs='+',
        choices=ATTENTIONS,
        help="default: the task's; light archs (xxs, xs) have global attention only",
    )
    parser.add_argument(
        '--shape', nargs='+', help='batch x [frames x] height x width, e.g. 8x224x224'
    )
    parser.add_argument(
        '--dtype',
        nargs='+',
        choices=DTYPES,
        default=['float32'],
        help='half precision under autocast; steps in float16 have no loss scaler, which would add '
        'one pass over the gradients',
    )
    parser.add_argument('--mode', nargs='+', choices=MODES, default=['inference'])
    parser.add_argument(
        '--variant',
        nargs='+',
        choices=VARIANTS,
        default=['official', 'fast'],
        help='eager is our plain PyTorch, fast the same with fused blocks',
    )
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
    try:
        check(options)
        options.workloads = workloads(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def check(options: argparse.Namespace) -> None:
    """See that everything can be measured and written, before hours are spent.

    Raises:
        ValueError: It cannot.
    """
    check_device(options.device)
    for name, least in {'repeats': 1, 'operators': 0, 'threads': 1}.items():
        value = getattr(options, name)
        if value < least:
            raise ValueError(f'--{name} {value} must be at least {least}.')
    if options.scale and len(options.shape or ()) > 1:
        raise ValueError(
            f'--scale {options.scale} varies one shape, but --shape gives '
            f'{len(options.shape)}; give one.'
        )
    if options.sizes and not options.scale:
        raise ValueError(f'--sizes needs --scale; use one of {tuple(SCALES)}.')
    if options.plot and options.plot.suffix[1:].lower() not in plots.formats():
        raise ValueError(
            f'--plot {options.plot} has no known format; end it in one of {plots.formats()}.'
        )
    for path in (options.json, options.plot):
        if path:
            prepare(path, overwrite=True)


def check_device(name: str) -> None:
    """See that there is such a device.

    Raises:
        ValueError: There is none.
    """
    if name == 'cpu':
        return
    kind, _, index = name.partition(':')
    if kind != 'cuda' or not (index or '0').isdecimal():
        raise ValueError(f'--device {name!r} must be cpu, cuda or cuda:N.')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise ValueError(
            f'--device {name}: torch {torch.__version__} finds {count} GPUs; use --device cpu.'
        )


def shape_of(text: str, rank: int) -> tuple[int, ...]:
    """``'8x224x224'`` to ``(8, 224, 224)``; clips have a number of frames after the batch.

    Raises:
        ValueError: It is none, or too small.
    """
    try:
        shape = tuple(int(part) for part in text.lower().split('x'))
    except ValueError:
        shape = ()
    if len(shape) != rank + 1:
        form, example = (
            ('batch x height x width', '8x224x224')
            if rank == 2
            else ('batch x frames x height x width', '1x16x224x224')
        )
        raise ValueError(f'--shape {text!r} must be {form}, such as {example}.')
    return large_enough(shape, f'--shape {text!r}')


def large_enough(shape: tuple[int, ...], source: str) -> tuple[int, ...]:
    """The shape.

    Raises:
        ValueError: A network takes none so small; ``source`` says where it comes from.
    """
    if min(shape) < 1 or min(shape[-2:]) < MIN_SIDE:
        raise ValueError(
            f'{source} gives the shape {"x".join(map(str, shape))}; expected sizes of at least 1, '
            f'and a height and width of at least {MIN_SIDE} pixels.'
        )
    return shape


def scaled(shape: tuple[int, ...], scale: str, size: int) -> tuple[int, ...]:
    """``shape`` with one of its sizes replaced.

    Raises:
        ValueError: An image has no frames, or the size is too small.
    """
    batch, *frames, height, width = shape
    if scale == 'frames' and not frames:
        raise ValueError("--scale frames needs clips; use --task video or 'batch'.")
    found = {
        'resolution': (batch, *frames, size, size),
        'frames': (batch, size, height, width),
        'batch': (size, *frames, height, width),
    }[scale]
    return large_enough(found, f'size {size} of --scale {scale}')


def workloads(options: argparse.Namespace) -> list[Workload]:
    """Everything the command line asks for, in order; smaller sizes of a scale first.

    Raises:
        ValueError: Shapes, tasks and scale do not fit together.
    """
    found = []
    for arch in options.arch:
        for name in options.task:
            task = TASKS[name]
            default = task.cuda_shape if options.device.startswith('cuda') else task.cpu_shape
            shapes = [shape_of(text, task.rank) for text in options.shape or ()] or [default]
            if options.scale:
                sizes = sorted(options.sizes or SCALES[options.scale])
                shapes = [scaled(shapes[0], options.scale, size) for size in sizes]
            for attention in options.attention or [usual_attention(name, arch)]:
                for shape in shapes:
                    for dtype in options.dtype:
                        for mode in options.mode:
                            found.append(Workload(arch, name, attention, shape, dtype, mode))
    return found


def share(value: float | None) -> str:
    """In per cent; nothing if it was not counted."""
    return '' if value is None else f'{value:.0%}'


def _gradient_error(row: Row) -> str:
    found = row.training_errors.get(PARAMETER_GRADIENTS)
    return '' if found is None else f'{found:.1e}'


def table(rows: list[Row], title: str) -> Table:
    """The rows as text."""
    result = Table(title=title)
    on_gpu = any(row.gpu_ms for row in rows)
    trains = any(row.training_errors for row in rows)
    for column in (
        'work',
        'variant',
        'ms (quartiles)',
        *(('CPU overhead, ms', 'GPU time, ms', 'launches') if on_gpu else ()),
        'x official',
        'memory MiB',
        'of matmul',
        'of copy',
        'error',
        *(('of gradients',) if trains else ()),
    ):
        result.add_column(column, justify='left' if column in ('work', 'variant') else 'right')
    official = {row.work: row.median_ms for row in rows if row.variant == 'official'}
    for row in rows:
        if row.refused:
            result.add_row(str(row.work), row.variant, f'[red]refused: {escape(row.refused)}')
            continue
        base = official.get(row.work)
        result.add_row(
            str(row.work),
            row.variant,
            f'{row.median_ms:.1f} ({row.low_ms:.1f} to {row.high_ms:.1f})',
            *((f'{row.overhead_ms:.1f}', f'{row.gpu_ms:.1f}', str(row.launches)) if on_gpu else ()),
            f'{base / row.median_ms:.2f}' if base else '',
            f'{row.memory_mib:.0f}',
            share(row.of_matmul),
            share(row.of_copy),
            f'{row.error:.1e}' + (f' ({row.checked})' if row.checked else ''),
            *((_gradient_error(row),) if trains else ()),
        )
    return result


def save(rows: list[Row], rooflines: dict[str, Roofline], options: argparse.Namespace) -> None:
    """Write JSON and plot where asked for."""
    if options.json:
        record = {
            'machine': describe(options.device, options.threads),
            'rooflines': {dtype: asdict(roofline) for dtype, roofline in rooflines.items()},
            'rows': [asdict(row) for row in rows],
        }
        write_text(options.json, json.dumps(record, indent=1) + '\n')
    if options.plot:
        if options.scale:
            plots.curves(rows, options.scale, options.plot)
        else:
            plots.bars(rows, options.plot)


def rooflines_of(
    options: argparse.Namespace, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Roofline]:
    """Of every dtype in which the device itself multiplies; ours computes in float32 elsewhere."""
    device = options.device
    dtypes = ['float32' if is_emulated(dtype, device) else dtype for dtype in options.dtype]
    return {dtype: measure_roofline(device, dtype, clock) for dtype in dict.fromkeys(dtypes)}


def measure_all(options: argparse.Namespace, console: Console) -> tuple[list[Row], dict]:
    """The rows of all workloads, and the rooflines; saved after each one."""
    clock = time.process_time if options.processor_time else time.perf_counter
    rooflines = rooflines_of(options, clock)
    rows: list[Row] = []
    # Reasons by variant and work without its shape: larger sizes would fail the same way.
    not_tried: dict[tuple[str, Workload], str] = {}
    for work in options.workloads:
        console.print(f'{work} ...', style='dim')
        line = replace(work, shape=())
        found = measure(
            work,
            options.variant,
            options.device,
            options.repeats,
            rooflines,
            clock,
            options.operators,
            {name: reason for (name, of), reason in not_tried.items() if of == line},
        )
        if options.scale:
            not_tried |= {
                (row.variant, line): NOT_TRIED[row.refused]
                for row in found
                if row.refused in NOT_TRIED
            }
        rows += found
        save(rows, rooflines, options)
    return rows, rooflines


def main(arguments: list[str] | None = None) -> int:
    """Measure and report; 1 if a variant was refused."""
    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    torch.set_num_threads(options.threads)
    if ':' in options.device:
        # Events are timed on the current device's stream.
        torch.cuda.set_device(options.device)
    rows, rooflines = measure_all(options, console)
    console.print(table(rows, describe(options.device, options.threads)))
    for row in rows:
        if row.operators:
            shares = ', '.join(f'{name} {share:.0%}' for name, share in row.operators.items())
            console.print(f'{row.work}, {row.variant}: {shares}')
    for dtype, roofline in rooflines.items():
        console.print(
            f'{dtype}: matrix product {roofline.flops / 1e9:.0f} GFLOP/s, '
            f'copy {roofline.bytes / 1e9:.1f} GB/s (both directions)'
        )
    return int(any(row.refused for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
