# SPDX-License-Identifier: Apache-2.0
"""The CPU table: official and ours, eager, compiled, in ONNX Runtime and in OpenVINO.

    python tools/benchmark/cpu.py
    python tools/benchmark/cpu.py --rows dense --columns 'official eager' 'ours compiled'

UniFormer-S in float32. All forms of a row hold the same weights, take turns, and are compared with
the official network before they are timed; a number says how many times as fast as the official
network in eager mode. A column whose packages are not installed is left out. Training is eager.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.measure import step
from tools.benchmark.parity import maps_of, relative_error
from tools.benchmark.rows import describe
from tools.benchmark.timing import milliseconds, quartiles
from tools.benchmark.variants import build, conditions, decisive_state, why_not
from tools.benchmark.workloads import TASKS, Workload
from uniformer_mm.files import write_text

# Row: task, batch, mode.
ROWS = {
    'image batch 1': ('image', 1, 'inference'),
    'image batch 8': ('image', 8, 'inference'),
    'video': ('video', 1, 'inference'),
    'dense': ('dense', 1, 'inference'),
    'image batch 8, training': ('image', 8, 'training'),
    'video, training': ('video', 1, 'training'),
    'dense, training': ('dense', 1, 'training'),
}
TINY = {'image': (64, 64), 'dense': (64, 96), 'video': (4, 64, 64)}
# Column: variant of the network, how it runs.
COLUMNS = {
    'official eager': ('official', 'eager'),
    'ours eager': ('fast', 'eager'),
    'official compiled': ('official-compile', 'eager'),
    'ours compiled': ('compile', 'eager'),
    'official in ONNX Runtime': ('official', 'onnxruntime'),
    'ours in ONNX Runtime': ('fast', 'onnxruntime'),
    'official in OpenVINO': ('official', 'openvino'),
    'ours in OpenVINO': ('fast', 'openvino'),
}
PACKAGES = {
    'eager': (),
    'onnxruntime': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
}
TOLERANCE = 1e-3
Call = Callable[[], object]


def missing(engine: str) -> list[str]:
    """Packages of an engine that are not installed."""
    return [name for name in PACKAGES[engine] if importlib.util.find_spec(name) is None]


def export(network: nn.Module, x: Tensor, folder: Path) -> Path:
    """An ONNX file of a network in inference, for inputs of the size of ``x``."""
    path = folder / 'network.onnx'
    torch.onnx.export(network.eval(), (x,), str(path), dynamo=True, verbose=False)
    return path


def in_onnxruntime(path: Path, x: Tensor, threads: int) -> tuple[Call, Callable[[], list[Tensor]]]:
    """A call of ONNX Runtime, and what it gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ['CPUExecutionProvider']
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    inputs = {session.get_inputs()[0].name: x.numpy()}

    def call() -> list:
        return session.run(None, inputs)

    return call, lambda: [torch.from_numpy(y) for y in call()]


def in_openvino(path: Path, x: Tensor, threads: int) -> tuple[Call, Callable[[], list[Tensor]]]:
    """A call of OpenVINO in float32, and what it gives."""
    import openvino

    settings = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.Core().compile_model(str(path), 'CPU', settings)
    request, array = compiled.create_infer_request(), x.numpy()

    def call() -> object:
        return request.infer([array], share_inputs=True)

    return call, lambda: [torch.from_numpy(y.copy()) for y in call().values()]


ENGINES = {'onnxruntime': in_onnxruntime, 'openvino': in_openvino}


def prepare(
    column: str, work: Workload, state: dict[str, Tensor], threads: int
) -> tuple[Call, list[Tensor]]:
    """A column's call for a row, and the maps that it gives in inference.

    Raises:
        ValueError: There is no such form here.
    """
    variant, engine = COLUMNS[column]
    reason = why_not(variant, work, 'cpu')
    if reason:
        raise ValueError(reason)
    network, x = build(variant, work, state), work.sample('cpu')
    if engine == 'eager':
        network.eval()
        with torch.no_grad():
            maps = list(maps_of(network, x, 'float32'))
        return step(network, x, work), maps
    with tempfile.TemporaryDirectory() as folder:
        call, maps_now = ENGINES[engine](export(network, x, Path(folder)), x, threads)
    return call, maps_now()


def measure(name: str, columns: list[str], options: argparse.Namespace) -> dict[str, dict]:
    """Times of a row by column, or why there is none."""
    task, batch, mode = ROWS[name]
    size = TINY[task] if options.tiny else TASKS[task].cpu_shape[1:]
    arch = 'tiny' if options.tiny else 'small'
    work = Workload(arch, task, TASKS[task].attention, (batch, *size), 'float32', mode)
    state, found, calls, truth = decisive_state(work), {}, {}, None
    for column in columns:
        variant, engine = COLUMNS[column]
        if mode == 'training' and (engine != 'eager' or 'compile' in variant):
            continue
        try:
            with conditions(variant):
                call, maps = prepare(column, work, state, options.threads)
        except Exception as error:
            # Exporters and compilers of others raise whatever they like; the other columns count.
            found[column] = {'refused': f'{type(error).__name__}: {error}'.splitlines()[0]}
            continue
        truth = maps if truth is None else truth
        error = relative_error(maps, truth)
        if not error <= TOLERANCE:
            found[column] = {'refused': f'its maps differ by {error:.1e}'}
            continue
        found[column] = {'error': error}
        calls[column] = call
    for column, times in milliseconds(calls, options).items():
        low, median, high = quartiles(times)
        found[column] |= {'ms': median, 'low_ms': low, 'high_ms': high}
    torch._dynamo.reset()
    return found


def cell(found: dict, base_ms: float | None) -> str:
    """Text of a cell: times as fast as the first column."""
    if not found:
        return ''
    if 'ms' not in found:
        return '-'
    ratio = f'{base_ms / found["ms"]:.2f}' if base_ms else ''
    return ratio or f'{found["ms"]:.0f} ms'


def show(results: dict[str, dict], columns: list[str], title: str, console: Console) -> None:
    """Print the table and the reasons below it."""
    table = Table('', title=title)
    for column in columns:
        table.add_column(column, justify='right')
    for name, found in results.items():
        base = found.get('official eager', {}).get('ms')
        cells = [cell(found.get(column, {}), base) for column in columns]
        table.add_row(f'{name}, {base:.0f} ms' if base else name, *cells)
    console.print(table)
    for name, found in results.items():
        for column, values in found.items():
            if 'refused' in values:
                console.print(f'{name}, {column}: {values["refused"]}', markup=False)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS), metavar='ROW')
    parser.add_argument(
        '--columns', nargs='+', choices=COLUMNS, default=list(COLUMNS), metavar='COLUMN'
    )
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=0.5, help='of one measurement')
    parser.add_argument('--processor-time', action='store_true', help='with --threads 1')
    parser.add_argument('--tiny', action='store_true', help='tiny shapes, to see that it works')
    parser.add_argument('--json', type=Path, help='also write the times here')
    options = parser.parse_args(arguments)
    if options.processor_time and options.threads != 1:
        parser.error('--processor-time needs --threads 1')
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a form that can run here gives other maps."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 170)
    columns = []
    for column in options.columns:
        absent = missing(COLUMNS[column][1])
        if absent:
            console.print(f'{column} is left out: {", ".join(absent)} not installed', style='dim')
        else:
            columns.append(column)
    machine, results = describe('cpu', options.threads), {}
    for name in options.rows:
        began = time.monotonic()
        results[name] = measure(name, columns, options)
        console.print(f'{name}: {time.monotonic() - began:.0f} s', style='dim')
        if options.json:
            content = {'machine': machine, 'rows': results}
            write_text(options.json, json.dumps(content, indent=1) + '\n')
    show(results, columns, machine, console)
    reasons = [cell.get('refused', '') for found in results.values() for cell in found.values()]
    return int(any('differ' in reason for reason in reasons))


if __name__ == '__main__':
    raise SystemExit(main())
