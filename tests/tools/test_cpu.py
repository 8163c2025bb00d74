# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/cpu.py``: columns are compared, timed in turns, or left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tools.benchmark import cpu, variants

QUICK = ['--tiny', '--repeats', '1', '--seconds', '0.0001', '--threads', '1']
EAGER = ['--columns', 'official eager', 'ours eager']


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_rows_in_inference_and_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / 'cpu.json'
    rows = ['--rows', 'image batch 1', 'video', 'dense, training']
    assert cpu.main([*QUICK, *EAGER, *rows, '--json', str(path)]) == 0
    found = json.loads(path.read_text())['rows']
    assert list(found) == rows[1:]
    for row in found.values():
        assert set(row) == {'official eager', 'ours eager'}
        assert row['official eager']['error'] == 0
        assert 0 < row['ours eager']['error'] < 1e-4
        assert all(cell['low_ms'] <= cell['ms'] <= cell['high_ms'] for cell in row.values())
    assert '1.00' in capsys.readouterr().out


def test_a_column_without_its_packages_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(cpu.PACKAGES, 'openvino', ('no_such_package',))
    columns = ['--columns', 'official eager', 'official in OpenVINO', 'ours in OpenVINO']
    path = tmp_path / 'cpu.json'
    assert cpu.main([*QUICK, *columns, '--rows', 'image batch 1', '--json', str(path)]) == 0
    assert set(json.loads(path.read_text())['rows']['image batch 1']) == {'official eager'}
    assert 'ours in OpenVINO is left out: no_such_package not installed' in capsys.readouterr().out


def test_other_maps_are_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    built = variants.VARIANTS['fast']

    def wrong(work: object) -> torch.nn.Module:
        network = built(work)
        network.register_forward_hook(lambda module, x, y: y * 1.01)
        return network

    monkeypatch.setitem(variants.VARIANTS, 'fast', wrong)
    assert cpu.main([*QUICK, *EAGER, '--rows', 'image batch 1']) == 1
    assert 'ours eager: its maps differ by 1.0e-02' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_exported_networks_are_right(engine: str, tmp_path: Path) -> None:
    for package in cpu.PACKAGES[engine]:
        pytest.importorskip(package)
    columns = [name for name, (_, runs) in cpu.COLUMNS.items() if runs == engine]
    path = tmp_path / 'cpu.json'
    arguments = ['--columns', 'official eager', *columns, '--rows', 'image batch 1']
    assert cpu.main([*QUICK, *arguments, '--json', str(path)]) == 0
    found = json.loads(path.read_text())['rows']['image batch 1']
    assert all('ms' in found[column] for column in columns), found
