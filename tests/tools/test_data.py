# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/data.py``: each transform has its time, replacements are told apart."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from tools.benchmark import data as benchmark_data
from uniformer_mm.synth import make_data

CONFIG = 'configs/cls/quickstart.py'


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
    make_data(tmp_path, tasks=('cls',), size='tiny')
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path))
    return tmp_path


def test_a_slow_transform_is_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpretrain.datasets.transforms import PackInputs

    pack = PackInputs.transform

    def slow(self: PackInputs, results: dict) -> dict:
        time.sleep(0.02)
        return pack(self, results)

    monkeypatch.setattr(PackInputs, 'transform', slow)
    record = data / 'record.json'
    assert benchmark_data.main([CONFIG, '--samples', '3', '--json', str(record)]) == 0
    rows = json.loads(record.read_text())['rows']
    pipeline = Config.fromfile(CONFIG).train_dataloader.dataset.pipeline
    names = [f'{index}. {step.type.split(".")[-1]}' for index, step in enumerate(pipeline)]
    assert [row['name'] for row in rows] == [*names, benchmark_data.REST, 'sample']
    times = {row['name']: row['ms'] for row in rows}
    assert times[names[-1]] >= 20
    assert times['sample'] >= times[names[-1]]


@pytest.mark.parametrize(
    ('pair', 'different'),
    [('ResizeEdge=mmpretrain.ResizeEdge', 0), ('CenterCrop=mmpretrain.RandomCrop', 4)],
)
def test_inputs_that_differ_are_counted(pair: str, different: int, data: Path) -> None:
    """The same transform by its other name, and one that cuts elsewhere."""
    record = data / 'record.json'
    arguments = [CONFIG, '--split', 'test', '--samples', '4', '--json', str(record)]
    assert benchmark_data.main([*arguments, '--instead', pair]) == 0
    found = json.loads(record.read_text())
    assert found['different'] == different
    assert all(row['instead_ms'] is not None for row in found['rows'])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--instead', 'DecordDecode=Resize'], "has type 'DecordDecode'; the types are 0. Load"),
        (['--options', 'val_dataloader=None', '--split', 'val'], 'has no val_dataloader'),
    ],
)
def test_what_is_not_there(
    arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_data.main([CONFIG, *arguments]) == 2
    assert message in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('arguments', [['--samples', '0'], ['--instead', 'Resize']])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_data.main([CONFIG, *arguments])
    assert arguments[1] in capsys.readouterr().err


def test_replacing_reaches_nested_transforms_alone() -> None:
    inner = ConfigDict(type='A', transforms=[dict(type='B', size=2), (dict(type='B'),)])
    changed, count = benchmark_data.replace(inner, 'B', 'C')
    assert count == 2
    assert changed == dict(type='A', transforms=[dict(type='C', size=2), (dict(type='C'),)])
    assert inner.transforms[0].type == 'B'
