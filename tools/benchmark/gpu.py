# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can tell, in one call of at most ten minutes.

    python tools/benchmark/gpu.py --out gpu-results

In this order: the comparison of all fused blocks with their plain form, the tests that need a GPU,
and the table of networks: UniFormer-S, then B if time is left, in inference and training. After
each cell ``gpu.json`` and ``gpu.md`` are written, so that a run that is cut off keeps what it has.
A cell that would begin too late is listed instead; one that is wrong or fails has its reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.measure import measure
from tools.benchmark.rows import Row, describe
from tools.benchmark.timing import Roofline, measure_roofline
from tools.benchmark.workloads import MODES, TASKS, Workload, usual_attention
from uniformer_mm.files import write_text

ROOT = Path(__file__).resolve().parents[2]
# What is measured side by side, in the order of what it is worth; compiling takes longest.
GROUPS = (('official', 'eager', 'fast'), ('graphs',), ('compile',), ('reduce-overhead',))
ARCHS = ('small', 'base')
TINY_ARCH = 'tiny'
TINY = {'image': (2, 64, 64), 'dense': (1, 64, 96), 'video': (1, 4, 64, 64)}
TEST_SECONDS = 150.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """Variants of one workload that are measured together."""

    workload: Workload
    variants: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.workload}: {", ".join(self.variants)}'


def cells(tiny: bool) -> Iterator[Cell]:
    """All cells, the most valuable first."""
    for arch in (TINY_ARCH,) if tiny else ARCHS:
        for variants in GROUPS:
            for mode in MODES:
                for name, task in TASKS.items():
                    shape = TINY[name] if tiny else task.cuda_shape
                    attention = usual_attention(name, arch)
                    dtype = 'float32' if tiny else 'bfloat16'
                    yield Cell(Workload(arch, name, attention, shape, dtype, mode), variants)


class Report:
    """What was found so far, on disk after every change.

    Args:
        folder: Where ``gpu.json`` and ``gpu.md`` are written.
        machine: Device, versions and date.
    """

    def __init__(self, folder: Path, machine: str) -> None:
        self.folder = folder
        self.machine = machine
        self.verification: dict = {'state': 'not run'}
        self.tests: dict = {'state': 'not run'}
        self.rows: list[Row] = []
        self.failures: dict[str, str] = {}
        self.left_out: list[str] = []

    def save(self) -> None:
        """Write both files, whole or not at all."""
        content = {
            'machine': self.machine,
            'verification': self.verification,
            'tests': self.tests,
            'rows': [dataclasses.asdict(row) for row in self.rows],
            'failures': self.failures,
            'left_out': self.left_out,
        }
        write_text(self.folder / 'gpu.json', json.dumps(content, indent=1) + '\n')
        write_text(self.folder / 'gpu.md', self.markdown())

    def markdown(self) -> str:
        """The report for people."""
        lines = [f'# GPU report\n\n{self.machine}\n', '## Verification of the fused blocks\n']
        found = self.verification.get('rows', [])
        lines += [self.verification['state'] + '\n', *table(found)]
        lines += ['## Tests that need a GPU\n', self.tests['state'] + '\n', '## Networks\n']
        lines += table(network_rows(self.rows))
        if self.failures:
            lines += ['## Failed\n', *(f'* {name}: {text}' for name, text in self.failures.items())]
        if self.left_out:
            lines += ['## Not run, for want of time\n', *(f'* {name}' for name in self.left_out)]
        return '\n'.join(lines) + '\n'

    def is_right(self) -> bool:
        """Whether nothing failed and no variant that can run here was refused for its results."""
        return not (
            self.failures
            or self.tests.get('failed')
            or self.verification.get('failed')
            or any('differ' in row.refused for row in self.rows)
        )


def table(rows: list[dict]) -> list[str]:
    """Rows of equal keys as a Markdown table; empty without rows."""
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f'| {" | ".join(names)} |', f'|{"---|" * len(names)}']
    for row in rows:
        cells = (str(row.get(name, '')).replace('|', '/').replace('\n', ' ') for name in names)
        lines.append(f'| {" | ".join(cells)} |')
    return [*lines, '']


def network_rows(rows: list[Row]) -> list[dict]:
    """What the table says of each measured row."""
    official = {row.work: row.median_ms for row in rows if row.variant == 'official'}
    found = []
    for row in rows:
        line = {'workload': str(row.work), 'variant': row.variant}
        if row.refused:
            found.append(line | {'ms (quartiles)': row.refused})
            continue
        base = official.get(row.work)
        line |= {
            'ms (quartiles)': f'{row.median_ms:.2f} ({row.low_ms:.2f} to {row.high_ms:.2f})',
            'x official': f'{base / row.median_ms:.2f}' if base else '',
            'memory, MiB': f'{row.memory_mib:.0f}',
            'launches': str(row.launches),
            'CPU time, ms': f'{row.overhead_ms:.2f}',
            'GPU time, ms': f'{row.gpu_ms:.2f}',
            'error': f'{row.error:.1e}',
        }
        found.append(line)
    return found


def as_dict(row: object) -> dict:
    """A row, of whatever kind, by the names of its fields."""
    if dataclasses.is_dataclass(row):
        return dataclasses.asdict(row)
    return row._asdict() if hasattr(row, '_asdict') else dict(row)


def verify(report: Report, device: str) -> None:
    """Compare every kind of fused block with its plain form."""
    began = time.monotonic()
    from uniformer_mm.env.gpu import verify_all

    try:
        rows = verify_all(device)
    except Exception as error:
        report.failures['verification'] = f'{type(error).__name__}: {error}'
        report.verification = {
            'state': 'failed',
            'failed': True,
            'traceback': traceback.format_exc(),
        }
        return
    found = [as_dict(row) for row in rows]
    wrong = [row for row in found if row['verdict']]
    report.verification = {
        'state': f'{len(found)} blocks, {len(wrong)} wrong, {time.monotonic() - began:.0f} s',
        'failed': bool(wrong),
        'rows': [{name: str(value) for name, value in row.items()} for row in found],
    }


def run_tests(report: Report, tests: list[str], seconds: float) -> None:
    """Run the tests that are marked ``gpu``, for so long; their output is beside the report."""
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider', *tests]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    log = report.folder / 'gpu-tests.log'
    with log.open('w', encoding='utf-8') as stream:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            report.tests = {'state': f'not done after {seconds:.0f} s, see gpu-tests.log'}
            return
    lines = log.read_text(encoding='utf-8').splitlines()
    summary = next((line for line in reversed(lines) if line.strip()), '')
    # pytest's 5 is: nothing is marked so.
    report.tests = {'state': summary, 'failed': done.returncode not in (0, 5)}


def run_cell(
    report: Report, cell: Cell, device: str, repeats: int, rooflines: dict[str, Roofline]
) -> None:
    """Measure one cell; what goes wrong is part of the report."""
    try:
        report.rows += measure(cell.workload, list(cell.variants), device, repeats, rooflines)
    except Exception as error:
        # After most errors of a kernel the other cells fail too, and say so; what was measured
        # before must not be lost.
        report.failures[str(cell)] = f'{type(error).__name__}: {error}'


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--minutes', type=float, default=10.0, help='nothing begins later')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--device', default='cuda', help='cpu needs --tiny')
    parser.add_argument('--tiny', action='store_true', help='tiny shapes, to see that it works')
    parser.add_argument('--tests', nargs='+', default=['tests'], help='where gpu tests are')
    options = parser.parse_args(arguments)
    on_cpu = options.device == 'cpu'
    if on_cpu and not options.tiny:
        parser.error('--device cpu would take hours; add --tiny')
    if not on_cpu and not torch.cuda.is_available():
        parser.error(f'--device {options.device}: torch {torch.__version__} finds no GPU')
    if options.minutes <= 0 or options.repeats < 1:
        parser.error('--minutes must be above 0 and --repeats at least 1')
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run all; 1 if something is wrong."""
    options = parse(arguments)
    begin, device = time.monotonic(), options.device
    end = begin + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out, describe(device, torch.get_num_threads()))
    report.save()
    print(report.machine, flush=True)

    verify(report, device)
    report.save()
    print(f'verification: {report.verification["state"]}', flush=True)
    run_tests(report, options.tests, min(TEST_SECONDS, max(1.0, end - time.monotonic())))
    report.save()
    print(f'tests: {report.tests["state"]}', flush=True)

    dtype = 'float32' if options.tiny else 'bfloat16'
    rooflines = {dtype: measure_roofline(device, dtype)}
    longest: dict[tuple[str, ...], float] = {}
    for cell in cells(options.tiny):
        # What the longest cell of its kind took, or nothing before the first.
        if time.monotonic() + longest.get(cell.variants, 0.0) > end:
            report.left_out.append(str(cell))
            continue
        began = time.monotonic()
        run_cell(report, cell, device, options.repeats, rooflines)
        report.save()
        spent = time.monotonic() - began
        longest[cell.variants] = max(spent, longest.get(cell.variants, 0.0))
        print(f'[{time.monotonic() - begin:4.0f} s] {cell}', flush=True)
    report.save()
    print(f'see {options.out / "gpu.md"}')
    return 0 if report.is_right() else 1


if __name__ == '__main__':
    raise SystemExit(main())
