#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Time the package's operators beside the PyTorch's, on the maps of UniFormer-S.

    python tools/benchmark/operators.py                      # this machine's GPU, else its CPU
    python tools/benchmark/operators.py --work video --dtype bfloat16 --train
    python tools/benchmark/operators.py --operations mlp rows --dtype bfloat16
    python tools/benchmark/operators.py --overhead           # CPU overhead of a call
    python tools/benchmark/operators.py --tune               # GPU: find and keep the fastest tiles

Each row times ``depthwise_conv`` on channels-last maps and what the official network does,
``x + conv(x)`` on channels-first maps, in turns, and gives the median, the middle half of the
repeats and the ratio of the medians. Before a row is timed its outputs and gradients are compared
with the float64 reference: an error above twice the PyTorch's refuses the row. The MLP and what
stands between matrix products (``--operations``) are treated alike, beside the PyTorch's
operators; what only bytes bound is also given as a share of a copy's rate in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.comparisons import (
    Comparison,
    first_excess,
    mlp_add_comparison,
    mlp_comparison,
    row_comparisons,
)
from tools.benchmark.overhead import as_on_a_gpu, launches, passes
from tools.benchmark.timing import (
    copied_per_millisecond,
    device_name,
    medians,
    milliseconds,
    quartiles,
)
from uniformer_mm.files import write_text
from uniformer_mm.ops import depthwise_conv, reference
from uniformer_mm.ops.dispatch import MAX_MLP_CHANNELS

CONV = {2: F.conv2d, 3: F.conv3d}
# Per kind of work: (batch on the CPU, batch on the GPU), sizes and channels of the four stages,
# extents of the depthwise kernels there (the 5-wide one has no residual).
WORK = {
    'image': ((8, 256), ((56, 56, 64), (28, 28, 128), (14, 14, 320), (7, 7, 512))),
    'dense': ((1, 4), ((200, 320, 64), (100, 160, 128), (50, 80, 320), (25, 40, 512))),
    'video': ((1, 16), ((8, 56, 56, 64), (8, 28, 28, 128), (8, 14, 14, 320), (8, 7, 7, 512))),
}
TINY = ((5, 6, 8), (3, 4, 5, 8))
OPERATIONS = ('depthwise', 'mlp', 'rows')


@dataclass(frozen=True)
class Problem:
    """One depthwise convolution: ``shape`` is channels last, ``kernel`` its extents."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    residual: bool
    dtype: torch.dtype
    device: str

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map, taps, bias and cotangent; the map and parameters want gradients."""
        draw = torch.Generator(self.device).manual_seed(0)
        channels = self.shape[-1]
        shapes = (self.shape, (channels, 1, *self.kernel), (channels,), self.shape)
        x, weight, bias, grad = (
            torch.randn(shape, generator=draw, device=self.device).to(self.dtype)
            for shape in shapes
        )
        # Parameters are float32 in training, as under autocast; their values fit the dtype.
        weight, bias = weight.float(), bias.float()
        return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad


def official(x_BCS: Tensor, weight: Tensor, bias: Tensor, residual: bool) -> Tensor:
    """The official network's form, on a channels-first map."""
    kernel = weight.shape[2:]
    weight, bias = weight.to(x_BCS.dtype), bias.to(x_BCS.dtype)
    padding = [k // 2 for k in kernel]
    y = CONV[len(kernel)](x_BCS, weight, bias, padding=padding, groups=len(weight))
    return x_BCS + y if residual else y


def refusal(problem: Problem, backend: str) -> str | None:
    """Why the row must not be reported: the first result that is off; None if all are right."""
    x, weight, bias, grad = problem.tensors()
    leaves = (x, weight, bias)

    def results(y: Tensor) -> list[Tensor]:
        return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]

    exact = results(reference.depthwise_conv(x, weight, bias, residual=problem.residual))
    ours = results(depthwise_conv(*leaves, residual=problem.residual, backend=backend))
    plain = official(x.movedim(-1, 1).contiguous(), weight, bias, problem.residual)
    other = results(plain.movedim(1, -1))
    names = ('output', 'input gradient', 'weight gradient', 'bias gradient')
    return first_excess(names, ours, other, exact)


def calls(problem: Problem, backend: str, train: bool) -> dict[str, Callable[[], object]]:
    """The two calls to compare."""
    x, weight, bias, grad = problem.tensors()
    x_BCS = x.detach().movedim(-1, 1).contiguous().requires_grad_()
    grad_BCS = grad.movedim(-1, 1).contiguous()
    residual = problem.residual

    def ours() -> object:
        with torch.set_grad_enabled(train):
            y = depthwise_conv(x, weight, bias, residual=residual, backend=backend)
        return torch.autograd.grad(y, (x, weight, bias), grad) if train else y

    def theirs() -> object:
        with torch.set_grad_enabled(train):
            y = official(x_BCS, weight, bias, residual)
        return torch.autograd.grad(y, (x_BCS, weight, bias), grad_BCS) if train else y

    return {'ours': ours, 'official': theirs}


def maps(args: argparse.Namespace) -> list[tuple[int, tuple[int, ...]]]:
    """Stage and channels-last shape of each map that the arguments ask for."""
    if args.tiny:
        return [(stage, (2, *size)) for stage, size in enumerate(TINY)]
    found = []
    for work in args.work:
        batches, sizes = WORK[work]
        batch = args.batch or batches[args.device == 'cuda']
        found += [(stage, (batch, *size)) for stage, size in enumerate(sizes)]
    return found


def problems(args: argparse.Namespace) -> list[Problem]:
    """The convolutions."""
    shapes = [(shape, k) for stage, shape in maps(args) for k in ((3, 5) if stage < 2 else (3,))]
    return [
        Problem(shape, (k,) * (len(shape) - 2), k == 3, getattr(torch, dtype), args.device)
        for (shape, k), dtype in itertools.product(shapes, args.dtype)
    ]


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The MLPs that have kernels, and what stands between products; made one after the other."""
    for (_, shape), name in itertools.product(maps(args), args.dtype):
        dtype, device = getattr(torch, name), args.device
        if 'mlp' in args.operations and shape[-1] <= MAX_MLP_CHANNELS:
            yield mlp_comparison(shape, dtype, device, args.train, args.backend)
            yield mlp_add_comparison(shape, dtype, device, args.backend)
        if 'rows' in args.operations:
            yield from row_comparisons(shape, dtype, device, args.backend)


def measure(args: argparse.Namespace) -> list[dict]:
    """One row for each problem; a refused row holds the reason and no times."""
    rows = []
    device = {'device': device_name(args.device)}
    for problem in problems(args) if 'depthwise' in args.operations else ():
        row = device | {
            'operation': 'depthwise_conv',
            'shape': 'x'.join(map(str, problem.shape)),
            'kernel': 'x'.join(map(str, problem.kernel)),
            'dtype': str(problem.dtype).split('.')[1],
            'pass': 'forward + backward' if args.train else 'forward',
        }
        reason = refusal(problem, args.backend)
        if reason is None:
            row |= medians(milliseconds(calls(problem, args.backend, args.train), args))
            row['speedup'] = row['official_ms'] / row['ours_ms']
        rows.append(row | {'refused': reason})
    if {'mlp', 'rows'} & set(args.operations):
        rate = copied_per_millisecond(args)
        rows += [device | compare(comparison, rate, args) for comparison in comparisons(args)]
    return rows


def compare(comparison: Comparison, rate: float, args: argparse.Namespace) -> dict:
    """One row: the package's form beside the PyTorch's.

    Args:
        comparison: What to compare.
        rate: Bytes that a copy moves in a millisecond.
        args: The command line.
    """
    is_mlp = comparison.operation == 'mlp'
    row = {
        'operation': comparison.operation,
        'shape': 'x'.join(map(str, comparison.shape)),
        'dtype': str(comparison.dtype).split('.')[1],
        'pass': 'forward + backward' if args.train and is_mlp else 'one call',
    }
    reason = comparison.refusal()
    if reason is None:
        forms = {'ours': comparison.ours, 'pytorch': comparison.theirs}
        row |= medians(milliseconds(forms, args))
        row['speedup'] = row['pytorch_ms'] / row['ours_ms']
        if comparison.nbytes is not None:
            row['of_copy'] = comparison.nbytes / row['ours_ms'] / rate
    return row | {'refused': reason}


def overhead(args: argparse.Namespace) -> list[dict]:
    """Host microseconds of a call on a tiny map and, without a GPU, of launches and passes."""
    problem = Problem((1, 1, 1, 8), (3, 3), True, torch.float32, args.device)
    x, weight, bias, _ = problem.tensors()
    x_BCS = x.detach().movedim(-1, 1).contiguous()

    def recorded() -> None:
        depthwise_conv(x, weight, bias, residual=True, backend=args.backend)

    def no_grad() -> None:
        with torch.no_grad():
            recorded()

    table = {
        'operator, no gradient': no_grad,
        'operator, recorded': recorded,
        'PyTorch, recorded': lambda: official(x_BCS, weight, bias, True),
    }
    alone = args.device == 'cpu' and importlib.util.find_spec('triton') is not None
    if alone:
        table |= launches()
    times = milliseconds(table, args)
    if alone:
        with as_on_a_gpu():
            times |= milliseconds(passes(), args)
    return [{'call': name, 'us': quartiles(t)[1] * 1e3} for name, t in times.items()]


def tune(args: argparse.Namespace) -> list[dict]:
    """Tunes every problem's forward and weight gradient; keeps the fastest tiles."""
    from uniformer_mm.ops.triton.tuning import tune as tune_tiles

    rows = []
    for problem, operation in itertools.product(problems(args), ('forward', 'weight_grad')):
        row = {
            'operation': operation,
            'shape': 'x'.join(map(str, problem.shape)),
            'kernel': 'x'.join(map(str, problem.kernel)),
        }
        try:
            times = tune_tiles(operation, problem.shape, problem.kernel, problem.dtype)
        except RuntimeError as error:
            rows.append(row | {'refused': str(error)})
            continue
        best, fastest = next(iter(times.items()))
        slowest = max(times.values())
        rows.append(row | {'tile': str(best), 'ms': fastest, 'slowest_ms': slowest})
    return rows


def show(rows: list[dict], console: Console) -> None:
    """Print rows as a table; missing cells stay empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace('_', ' ') for name in names))
    for row in rows:
        cells = (row.get(name) for name in names)
        table.add_row(
            *('' if c is None else f'{c:.3g}' if isinstance(c, float) else str(c) for c in cells)
        )
    console.print(table)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    best = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=best)
    parser.add_argument('--operations', nargs='+', choices=OPERATIONS, default=['depthwise'])
    parser.add_argument('--work', nargs='+', choices=sorted(WORK), default=sorted(WORK))
    parser.add_argument(
        '--dtype', nargs='+', choices=('float32', 'bfloat16', 'float16'), default=['float32']
    )
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--batch', type=int, help='default: 8, 1, 1 on the CPU; 256, 4, 16')
    parser.add_argument('--train', action='store_true', help='forward and backward')
    parser.add_argument('--threads', type=int, help='default: all; 1 for --overhead')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='one thread, time of the processor: for a CPU that others use too',
    )
    parser.add_argument('--repeats', type=int, default=11)
    parser.add_argument('--seconds', type=float, default=0.05, help='of one measurement')
    parser.add_argument('--tiny', action='store_true', help='tiny maps, to see that it works')
    parser.add_argument('--overhead', action='store_true', help='CPU overhead of a call instead')
    parser.add_argument('--tune', action='store_true', help='find and keep the fastest tiles')
    parser.add_argument('--json', type=Path, help='also write the rows here')
    args = parser.parse_args(arguments)
    if args.processor_time and (args.device != 'cpu' or args.threads not in (None, 1)):
        parser.error('--processor-time needs --device cpu and one thread')
    one = args.overhead or args.processor_time
    args.threads = args.threads or (1 if one else torch.get_num_threads())
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: there is no GPU here; use --device cpu')
    if args.tune and args.device != 'cuda':
        parser.error('--tune needs a GPU: tiles are the GPU kernels’')
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and fail if a row was refused."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    rows = (tune if args.tune else overhead if args.overhead else measure)(args)
    show(rows, Console(width=200))
    if args.json:
        write_text(args.json, json.dumps({'torch': torch.__version__, 'rows': rows}, indent=1))
    refused = [row for row in rows if row.get('refused')]
    return 1 if refused else 0


if __name__ == '__main__':
    raise SystemExit(main())
