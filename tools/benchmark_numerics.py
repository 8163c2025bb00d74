# SPDX-License-Identifier: Apache-2.0
"""How far bfloat16 autocast moves each network's maps, beside what it does to the reference's.

``python tools/benchmark_numerics.py`` (all archs of both ranks), ``--arch small base --rank 3``

An error is the relative distance of all maps under autocast from the same network's float32 maps,
for random weights and inputs. The reference keeps a float32 residual stream, as autocast on a GPU
gives it. A processor without bfloat16 instructions computes the same numbers, slowly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.models.official import OfficialUniFormer
from tools.benchmarking.measure import describe, outputs
from tools.benchmarking.variants import TASKS, Work, build, random_state
from uniformer_mm.models.arch import available_archs
from uniformer_mm.submission.writing import write_text

TASK_OF_RANK = {2: 'image', 3: 'video'}
SIZES = {2: (2, 224, 224), 3: (1, 8, 112, 112)}
OURS = {'float32': 'eager', 'autocast': 'eager-autocast-stream'}


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
    network.cpu_multiplies_bfloat16 = True
    exact = outputs(network, x, 'float32')
    return float((outputs(network, x, 'bfloat16') - exact).norm() / exact.norm())


def measure(arch: str, rank: int, device: str) -> Row:
    """The errors of one network of both kinds with the same weights and inputs."""
    task = TASK_OF_RANK[rank]
    work = Work(arch, task, TASKS[task].attention, SIZES[rank], 'bfloat16', 'inference')
    x, state = work.sample(device), random_state(work)
    found = {
        name: error(build(variant, work, state).to(device), x)
        for name, variant in {'reference': 'official', **OURS}.items()
    }
    return Row(arch, rank, found.pop('reference'), found)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', nargs='+', choices=available_archs(), default=available_archs())
    parser.add_argument('--rank', nargs='+', type=int, choices=(2, 3), default=[2, 3])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args(arguments)
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
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
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
