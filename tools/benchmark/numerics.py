# SPDX-License-Identifier: Apache-2.0
"""How far bfloat16 autocast moves each network's maps, beside what it does to the reference's.

``python tools/benchmark/numerics.py`` (all archs of both ranks), ``--arch small base --rank 3``
``python tools/benchmark/numerics.py --gelu`` (a GELU before and after rounding)

An error is the relative distance of all maps under autocast from the same network's float32 maps,
for random weights and inputs. The reference keeps a float32 residual stream, as autocast on a GPU
gives it. A processor without bfloat16 instructions computes the same numbers, slowly.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.parity import outputs
from tools.benchmark.rows import describe
from tools.benchmark.variants import build, random_state
from tools.benchmark.workloads import TASKS, Workload
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.files import write_text
from uniformer_mm.models.arch import available_archs

TASK_OF_RANK = {2: 'image', 3: 'video'}
SIZES = {2: (2, 224, 224), 3: (1, 8, 112, 112)}
DEVIATIONS = (0.3, 1.0, 2.0, 4.0)
HALF = (torch.bfloat16, torch.float16)
OURS = {'float32': 'fast', 'autocast': 'fast-autocast-stream'}


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        arch: Its name.
        rank: 2 or 3.
        reference: Error of the reference.
        ours: Error of ours by the dtype of the residual stream.
    """

    arch: str
    rank: int
    reference: float
    ours: dict[str, float]


def error(network: nn.Module, x: torch.Tensor) -> float:
    """Relative distance of the maps under autocast from those in float32."""
    network.cpu_dtypes = {torch.bfloat16, torch.float16}
    exact = outputs(network, x, 'float32')
    return float((outputs(network, x, 'bfloat16') - exact).norm() / exact.norm())


def measure(arch: str, rank: int, device: str) -> Row:
    """The errors of one network of both kinds with the same weights and inputs."""
    task = TASK_OF_RANK[rank]
    work = Workload(arch, task, TASKS[task].attention, SIZES[rank], 'bfloat16', 'inference')
    x, state = work.sample(device), random_state(work)
    found = {
        name: error(build(variant, work, state).to(device), x)
        for name, variant in {'reference': 'official', **OURS}.items()
    }
    return Row(arch, rank, found.pop('reference'), found)


def gelu_errors(deviation: float, dtype: torch.dtype, count: int = 2_000_000) -> tuple[float, ...]:
    """Relative errors of a GELU of normal numbers, of which a product's sums are an example.

    Args:
        deviation: Theirs.
        dtype: A half precision.
        count: How many.

    Returns:
        Of the exact GELU of numbers that were rounded first, and of the tanh GELU of numbers that
        were not; both results are rounded.
    """
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(count, generator=draw, dtype=torch.float64) * deviation
    exact = F.gelu(h)
    after = F.gelu(h.to(dtype).float()).to(dtype)
    before = F.gelu(h.float(), approximate='tanh').to(dtype)
    return tuple(
        float((y - exact).norm() / exact.norm()) for y in (after.double(), before.double())
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', nargs='+', choices=available_archs(), default=available_archs())
    parser.add_argument('--rank', nargs='+', type=int, choices=(2, 3), default=[2, 3])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--gelu', action='store_true', help='a GELU before and after rounding')
    args = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if args.gelu:
        table = Table('deviation', 'dtype', 'exact, after rounding', 'tanh, before rounding')
        for deviation, dtype in itertools.product(DEVIATIONS, HALF):
            errors = gelu_errors(deviation, dtype)
            table.add_row(str(deviation), str(dtype), *(f'{error:.2e}' for error in errors))
        console.print(table)
        return 0
    OfficialUniFormer.autocast_as_on_gpu = True
    table = Table('network', 'reference', *(f'ours, {s} stream' for s in OURS), 'ratios')
    rows = []
    for rank in args.rank:
        for arch in args.arch:
            row = measure(arch, rank, args.device)
            rows.append(row)
            ratios = [value / row.reference for value in row.ours.values()]
            errors = (row.reference, *row.ours.values())
            table.add_row(
                f'{arch} {rank}-D',
                *(f'{value:.2e}' for value in errors),
                ', '.join(f'{ratio:.2f}' for ratio in ratios),
            )
    console.print(table)
    for stream in OURS:
        ratios = [row.ours[stream] / row.reference for row in rows]
        console.print(
            f'{stream} stream: {min(ratios):.2f} to {max(ratios):.2f}, '
            f'median {statistics.median(ratios):.2f} times the reference',
        )
    console.print(describe(args.device, torch.get_num_threads()))
    if args.json:
        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
