# SPDX-License-Identifier: Apache-2.0
"""How a run ends when it must: signals, losses that are no numbers, workers that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from uniformer_mm.reliability import RESUME_ME, NonFiniteLossHook
from uniformer_mm.reliability.memory import describe

from ..conftest import ROOT
from .test_saving import log_of, names
from .toy import BATCH, ends_alike, make_runner, newest


def start(folder: Path, **options) -> subprocess.Popen:
    """A run in a process group of its own."""
    command = [sys.executable, '-m', 'tests.reliability.toy', str(folder)]
    return subprocess.Popen(
        [*command, *(f'{key}={value!r}' for key, value in options.items())],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process, seconds=120):
    """Wait until something has happened in the run."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.02)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_to_all_processes_saves_and_says_resume_me(tmp_path, number):
    run = {'end': 3, 'workers': 2, 'data': {'pause': 0.05}}
    process = start(tmp_path / 'run', **run)
    wait_for(lambda: (tmp_path / 'run/epoch_1.pth').exists(), process)
    # As Slurm and a terminal send it: to the workers, too.
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == RESUME_ME, printed[-3000:]
    assert 'Exit status 75: go on with --resume' in printed
    make_runner(tmp_path / 'straight', **run).train()
    make_runner(tmp_path / 'run', resume=True, **run).train()
    assert ends_alike(tmp_path / 'straight', tmp_path / 'run') == []
    # The interrupted file went when a regular one was whole.
    assert not list((tmp_path / 'run').glob('interrupted*'))


def test_second_signal_ends_at_once(tmp_path):
    process = start(tmp_path, end=50, data={'pause': 3.0})
    wait_for(lambda: list(tmp_path.glob('*/*.log')), process)
    wait_for(lambda: 'Checkpoints will be saved' in log_of(tmp_path), process)
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    make_runner(tmp_path, end=1).train()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_losses_that_are_no_numbers_end_the_run(tmp_path):
    data = {'bad': 5, 'how': 'nan'}
    with pytest.raises(SystemExit) as caught:
        make_runner(tmp_path, end=30, data=data).train()
    assert caught.value.code == 1
    log = log_of(tmp_path)
    # The first bad batch spoils the weights, so that the next two are bad, too.
    assert '(1 of 3 in a row)' in log
    assert 'in 3 iterations in a row: training ends' in log
    first = next(line for line in log.splitlines() if '(1 of 3 in a row)' in line)
    assert 'sample 5 (photos/5.jpg)' in first
    assert first.count('photos/') == BATCH
    assert 'a longer warm-up' in log and 'bfloat16' in log
    assert not [name for name in names(tmp_path) if name.startswith('best')]


def test_bad_iterations_can_be_skipped(tmp_path):
    runner = make_runner(tmp_path, end=3, data={'bad': 5, 'how': 'nan'})
    hook = next(hook for hook in runner.hooks if isinstance(hook, NonFiniteLossHook))
    hook.action = 'skip'
    runner.model.norm = torch.nn.Identity()
    runner.train()
    assert runner.epoch == 3
    assert hook.skipped == 3
    weights = newest(tmp_path)['state_dict'].values()
    assert all(bool(torch.isfinite(value).all()) for value in weights)
    assert '3 iterations with a non-finite loss were skipped' in log_of(tmp_path)


def test_all_iterations_bad_end_a_run_that_skips(tmp_path):
    runner = make_runner(tmp_path, end=30, data={'bad': 5, 'how': 'nan'})
    hook = next(hook for hook in runner.hooks if isinstance(hook, NonFiniteLossHook))
    hook.action, hook.patience = 'skip', 1
    with pytest.raises(SystemExit):
        runner.train()


@pytest.mark.parametrize(
    ('option', 'message'),
    [({'action': 'ignore'}, "action='ignore' must be one of"), ({'patience': 0}, 'patience=0')],
)
def test_options_of_the_loss_hook(option, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteLossHook(**option)


@pytest.mark.parametrize('workers', [1, 2])
def test_worker_that_dies_is_named_with_its_sample(tmp_path, workers):
    process = start(tmp_path, end=3, workers=workers, data={'bad': 5, 'how': 'dies'})
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed[-3000:]
    line = next(line for line in printed.splitlines() if 'killed by signal' in line)
    assert 'was at sample 5 (photos/5.jpg) of batch' in line


def test_worker_that_hangs_is_named_with_its_sample(tmp_path):
    data = {'bad': 5, 'how': 'hangs'}
    process = start(tmp_path, end=3, workers=2, data=data, worker_timeout=3)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed[-3000:]
    line = next(line for line in printed.splitlines() if 'timed out after 3 seconds' in line)
    assert 'was at sample 5 (photos/5.jpg) of batch' in line


def test_advice_on_memory_has_numbers():
    from uniformer_mm import UniFormer2d

    arch = {'depths': (1, 1, 1, 1), 'dims': (16, 16, 32, 32), 'head_dim': 16}
    model = torch.nn.Sequential(UniFormer2d(arch))
    text = describe(model, peak=8 << 30, batch_size=4)
    assert 'ran out of memory: 8.0 GiB at most' in text
    assert "attention='hybrid'" in text and 'with_cp=True' in text
    # Activations are nearly all of the peak; half the batch takes half of them.
    assert 'batch_size=2 for 4 saves about 4.0 GiB' in text
    checkpointed = torch.nn.Sequential(
        UniFormer2d(arch, with_cp=True, attention='window', window_size=7)
    )
    text = describe(checkpointed, peak=8 << 30, batch_size=1)
    assert 'with_cp' not in text and 'hybrid' not in text and 'batch_size' not in text
