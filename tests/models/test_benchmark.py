# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark.py``: what it writes, what it counts and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tools import benchmark
from tools.benchmarking import variants
from tools.benchmarking.measure import CountBytes, operations
from tools.benchmarking.variants import Work

ARGUMENTS = ['--device', 'cpu', '--shape', '2x64x64', '--repeats', '2', '--arch', 'tiny']


def run(path: Path, *arguments: str) -> tuple[int, dict]:
    status = benchmark.main([*ARGUMENTS, '--json', str(path), *arguments])
    return status, json.loads(path.read_text())


def test_rows_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = benchmark.Ceilings(flops=1e9, bytes=1e9)
    monkeypatch.setattr(benchmark, 'measure_ceilings', lambda *_: small)
    plot = tmp_path / 'plot.png'
    status, record = run(tmp_path / 'rows.json', '--mode', 'training', '--plot', str(plot))
    assert status == 0
    assert torch.__version__ in record['machine']
    assert [row['variant'] for row in record['rows']] == ['official', 'eager']
    work = Work('tiny', 'image', 'global', (2, 64, 64), 'float32', 'training')
    network = variants.build('official', work, variants.random_state(work))
    flops = operations(network, work.sample('cpu'), work)
    for row in record['rows']:
        assert row['low_ms'] <= row['median_ms'] <= row['high_ms']
        assert row['of_matmul'] == pytest.approx(flops / 1e9 / (row['median_ms'] / 1e3))
        assert row['error'] < 1e-4
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_a_variant_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(work: Work) -> torch.nn.Module:
        network = variants._ours(work)
        network.register_forward_hook(lambda module, inputs, output: output * 1.001)
        return network

    monkeypatch.setitem(variants.VARIANTS, 'eager', wrong)
    status, record = run(tmp_path / 'rows.json')
    assert status == 1
    right, refused = record['rows']
    assert not right['refused']
    assert 'its outputs differ by 1.0e-03, more than 1.0e-04' in refused['refused']
    assert refused['median_ms'] == 0


def test_bytes_of_operators_and_kernels() -> None:
    x = torch.zeros(10, 20)
    with CountBytes().with_kernels() as moved:
        (x + x).view(200)
    assert moved.total == 2 * x.nbytes  # the sum, and one map that is both factors
    with CountBytes().with_kernels() as moved:
        x + x.clone()
    assert moved.total == (2 + 3) * x.nbytes


def test_a_launch_counts_its_tensors_once() -> None:
    pytest.importorskip('triton', reason='the package triton is not installed')
    from uniformer_mm.ops.launch import Constants, Kernel

    class Function:
        """Stands for a Triton kernel that computes nothing."""

        @staticmethod
        def fn() -> None:
            """What it is made of."""

        def __getitem__(self, grid: tuple) -> Callable:
            return lambda *arguments, **constants: None

    x, y, launch = torch.zeros(10, 20), torch.zeros(30), Kernel.__call__
    with CountBytes().with_kernels() as moved:
        Kernel(Function())((1,), (x, y, y), (4,), Constants(C=4))
    assert (moved.total, moved.launches) == (x.nbytes + y.nbytes, 1)
    assert Kernel.__call__ is launch


def test_shapes_that_do_not_fit(capsys: pytest.CaptureFixture) -> None:
    assert benchmark.main([*ARGUMENTS, '--task', 'video']) == 2
    assert "'2x64x64' must be batch x frames x height x width" in capsys.readouterr().out
