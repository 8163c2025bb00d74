# SPDX-License-Identifier: Apache-2.0
"""Interrupted, killed and shared tests leave the predictions and numbers of undisturbed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uniformer_mm.evaluation import PredictionStore
from uniformer_mm.evaluation.running import reproduce as reproduce_module
from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.codec import encode
from uniformer_mm.evaluation.running.launch import TestFailedError, run_test
from uniformer_mm.evaluation.running.loop import read_progress

from ..conftest import ROOT
from .helpers import QUICKSTARTS, command, measure


def stored(folder: Path) -> dict[int, tuple[str, bytes]]:
    """Key and results, byte by byte, of each finished sample."""
    return {s.position: (s.key, encode(s.results)) for s in PredictionStore(folder).read()}


def times(folder: Path) -> dict[int, float]:
    """How long each sample took, which tells a repeated one."""
    return {s.position: s.seconds for s in PredictionStore(folder).read()}


def prepared(folder: Path, target: Path) -> Path:
    """A folder with the inputs of a finished test and without its results."""
    target.mkdir(parents=True)
    for name in (worker.CONFIG, worker.SPEC):
        text = (folder / name).read_text().replace(str(folder), str(target))
        (target / name).write_text(text)
    return target


@pytest.mark.parametrize('task', list(QUICKSTARTS))
def test_an_interrupted_run_goes_on(task, data, weights, whole, tmp_path, in_process, monkeypatch):
    pytest.importorskip(worker._PACKAGES[task])
    folder, undisturbed = whole(task)
    add, batches = PredictionStore.add, []

    def interrupted(self, samples):
        add(self, samples)
        batches.append([sample.position for sample in samples])
        if len(batches) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(PredictionStore, 'add', interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(task, data, weights, tmp_path)
    (target,) = (path.parent for path in tmp_path.rglob(worker.SPEC))
    assert not (target / 'record.json').exists()
    before = times(target)
    assert len(before) == sum(map(len, batches)) < undisturbed.samples
    _, resumed = measure(task, data, weights, tmp_path)
    # Nothing was tested twice, and all of it once.
    tested = [position for batch in batches for position in batch]
    assert sorted(tested) == list(range(undisturbed.samples))
    assert times(target).items() >= before.items()
    assert stored(target) == stored(folder)
    assert resumed.metrics == undisturbed.metrics


def test_a_killed_process_goes_on(data, weights, whole, tmp_path, in_process):
    pytest.importorskip('mmpretrain')
    folder, undisturbed = whole('cls')
    target = prepared(folder, tmp_path / 'quickstart' / 'official')
    process = subprocess.Popen(
        [sys.executable, '-m', 'uniformer_mm.evaluation.running.worker', str(target)],
        env=os.environ | {'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        progress = read_progress(line)
        if progress and progress['done'] >= 2:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    before = times(target)
    assert 2 <= len(before) < undisturbed.samples
    _, resumed = measure('cls', data, weights, tmp_path)
    assert times(target).items() >= before.items()
    assert stored(target) == stored(folder)
    assert resumed.metrics == undisturbed.metrics


def test_processes_share_the_samples(whole, tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    folder, undisturbed = whole('cls')
    target = prepared(folder, tmp_path / 'shared')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    shown = []
    result = run_test(target, 2, lambda done, total: shown.append((done, total)))
    stores = sorted(target.glob('predictions.*.sqlite'))
    assert [path.name for path in stores] == ['predictions.0.sqlite', 'predictions.1.sqlite']
    # Each did every other sample; one by itself would have done them all.
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / stores[rank].name).write_bytes(stores[rank].read_bytes())
        share = PredictionStore(tmp_path / str(rank)).finished()
        assert share == set(range(rank, undisturbed.samples, 2))
    assert shown[-1] == (undisturbed.samples, undisturbed.samples)
    assert max(done for done, _ in shown) == undisturbed.samples
    # Batches hold other samples than those of one process, so the last bits may differ.
    assert {s.key for s in PredictionStore(target).read()} == {
        s.key for s in PredictionStore(folder).read()
    }
    # Records round to four decimals.
    assert round(result['metrics']['accuracy/top1'], 4) == undisturbed.metrics['top1']
    assert result['data']['samples'] == undisturbed.samples


def test_ctrl_c_says_how_to_go_on(data, tmp_path, monkeypatch):
    weights = tmp_path / 'w.pth'
    torch.save({'state_dict': {'x': torch.zeros(1)}}, weights)

    def interrupted(folder: Path, gpus: int, advance) -> dict:
        advance(1, 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce_module, 'run_test', interrupted)
    status, text = command(
        'reproduce', str(ROOT / QUICKSTARTS['seg']), '--weights', str(weights),
        '--data', str(data), '--work-dir', str(tmp_path / 'w'),
    )  # fmt: skip
    assert status == 130
    assert 'interrupted; the same command goes on where it stopped.' in text
    assert not list(tmp_path.rglob('record.json'))


def test_a_process_that_dies_leaves_its_last_words(tmp_path):
    # Neither configuration nor specification: the worker ends with a traceback.
    with pytest.raises(TestFailedError, match=r'exit status 1.*run\.log.*goes on'):
        run_test(tmp_path, 0, lambda done, total: None)
    assert 'Traceback' in (tmp_path / 'run.log').read_text()
