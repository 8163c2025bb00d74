# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/gpu.py`` on a CPU: the same code, tiny shapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.benchmark import gpu, rows
from tools.benchmark.timing import Roofline
from uniformer_mm.models import ARCHS
from uniformer_mm.models.arch import Arch

ARGUMENTS = ['--device', 'cpu', '--tiny', '--repeats', '1']


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, nothing that compiles for minutes, and no large copies."""
    narrow = Arch(depths=(1, 1, 2, 1), dims=(8, 8, 16, 16), head_dim=8)
    monkeypatch.setitem(ARCHS, 'narrow', narrow)
    monkeypatch.setattr(gpu, 'TINY_ARCH', 'narrow')
    monkeypatch.setattr(gpu, 'GROUPS', (('official', 'eager', 'fast'), ('graphs',)))
    monkeypatch.setattr(gpu, 'measure_roofline', lambda *_: Roofline(flops=1e9, bytes=1e9))


def verifies(monkeypatch: pytest.MonkeyPatch, **row: object) -> None:
    """Let the verification of blocks find one row."""
    module = ModuleType('uniformer_mm.env.gpu')
    module.verify_all = lambda device: [{'block': 'local', 'device': device, **row}]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def gpu_tests(tmp_path: Path) -> Path:
    """Two tests, of which one is for GPUs."""
    path = tmp_path / 'test_it.py'
    path.write_text(
        'import pytest\n\n@pytest.mark.gpu\ndef test_a(): pass\n\ndef test_b(): assert False\n'
    )
    return path


def test_the_whole_run(tmp_path: Path, gpu_tests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifies(monkeypatch, verdict=None)
    out = tmp_path / 'new' / 'out'
    arguments = ['--minutes', '60', '--out', str(out), '--tests', str(gpu_tests)]
    assert gpu.main([*ARGUMENTS, *arguments]) == 0
    report = json.loads((out / 'gpu.json').read_text())
    assert report['tests']['state'].startswith('1 passed, 1 deselected')
    assert report['verification']['state'].startswith('1 blocks, 0 wrong')
    measured = [row for row in report['rows'] if not row['refused']]
    assert len(measured) == 2 * 3 * 3
    assert all(row['median_ms'] > 0 and row['error'] < 1e-4 for row in measured)
    assert {row['refused'] for row in report['rows'] if row['variant'] == 'graphs'} == {
        'CUDA graphs need a GPU, not cpu'
    }
    assert report['left_out'] == [] and report['failures'] == {}
    page = (out / 'gpu.md').read_text()
    for text in (
        '| local | cpu | None |',
        'video narrow global 1x4x64x64 float32 training',
        '1 passed',
    ):
        assert text in page


def test_what_is_wrong_is_told_and_the_rest_is_measured(
    tmp_path: Path, gpu_tests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong block, a failing test, and a cell that raises in the middle."""
    verifies(monkeypatch, verdict='off by 3')
    gpu_tests.write_text(gpu_tests.read_text().replace('pass', 'assert False'))
    seen = []

    def failing(work: object, variants: list[str], *rest: object) -> list:
        seen.append((tmp_path / 'gpu.json').read_text())
        if len(seen) == 2:
            raise RuntimeError('an illegal memory access')
        return [rows.Row(work, variant, 1.0, 1.0, 1.0) for variant in variants]

    monkeypatch.setattr(gpu, 'measure', failing)
    assert gpu.main([*ARGUMENTS, '--out', str(tmp_path), '--tests', str(gpu_tests)]) == 1
    report = json.loads((tmp_path / 'gpu.json').read_text())
    assert report['verification']['state'].startswith('1 blocks, 1 wrong')
    assert report['tests']['failed']
    assert list(report['failures'].values()) == ['RuntimeError: an illegal memory access']
    assert len(report['rows']) == 3 * 5 + 6
    # What was measured before lies on the disk while the next cell runs.
    assert [len(json.loads(text)['rows']) for text in seen[:3]] == [0, 3, 3]


def test_what_would_begin_too_late_is_listed(
    tmp_path: Path, gpu_tests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifies(monkeypatch, verdict=None)
    now = [0.0]

    def slow(work: object, variants: list[str], *rest: object) -> list:
        now[0] += 40.0
        return [rows.Row(work, variant, 1.0, 1.0, 1.0) for variant in variants]

    monkeypatch.setattr(gpu.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(gpu, 'run_tests', lambda *_: None)
    monkeypatch.setattr(gpu, 'measure', slow)
    assert gpu.main([*ARGUMENTS, '--out', str(tmp_path), '--minutes', '1.5']) == 0
    report = json.loads((tmp_path / 'gpu.json').read_text())
    # Two cells of 40 s, and one of a kind that has not been timed.
    assert len(report['rows']) == 2 * 3 + 1
    assert len(report['left_out']) == 12 - 3
    assert 'Not run, for want of time' in (tmp_path / 'gpu.md').read_text()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--device', 'cpu'], 'would take hours; add --tiny'),
        (['--device', 'cuda:99'], 'finds no GPU'),
        ([*ARGUMENTS, '--minutes', '0'], '--minutes must be above 0'),
    ],
)
def test_says_what_does_not_go_together(
    arguments: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as left:
        gpu.main(['--out', str(tmp_path), *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
