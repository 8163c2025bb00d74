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


class Process:
    """A run in a process group of its own, which prints into a file beside its folder."""

    def __init__(self, folder: Path, **options):
        self.printed_to = folder.with_suffix('.out')
        command = [sys.executable, '-m', 'tests.reliability.toy', str(folder)]
        with open(self.printed_to, 'w') as out:
            self.process = subprocess.Popen(
                [*command, *(f'{key}={value!r}' for key, value in options.items())],
                cwd=ROOT,
                env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        return self.printed_to.read_text(errors='replace')

    def wait_for(self, text: str) -> None:
        """Wait until the run has printed a text; the test's time-out ends it."""
        while text not in self.printed():
            assert self.process.poll() is None, self.printed()[-3000:]
            time.sleep(0.05)

    def send(self, number: int, to_all: bool = False) -> None:
        (os.killpg if to_all else os.kill)(self.process.pid, number)

    def status(self) -> int:
        return self.process.wait()


@pytest.fixture
def start():
    """Starts runs, and ends those that the test has left."""
    started = []

    def begin(folder: Path, **options) -> Process:
        started.append(Process(folder, **options))
        return started[-1]

    yield begin
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()


@pytest.mark.parametrize(
    'number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signal_to_all_processes_saves_and_says_resume_me(tmp_path, start, number):
    run = {'end': 3, 'workers': 1, 'data': {'pause': 0.05}}
    process = start(tmp_path / 'run', **run)
    process.wait_for('Epoch(train) [2][1/4]')
    # As Slurm and a terminal send it: to the workers, too.
    process.send(number, to_all=True)
    assert process.status() == RESUME_ME, process.printed()[-3000:]
    assert 'Exit status 75: go on with --resume' in process.printed()
    make_runner(tmp_path / 'straight', **run).train()
    make_runner(tmp_path / 'run', resume=True, **run).train()
    assert ends_alike(tmp_path / 'straight', tmp_path / 'run') == []
    # The interrupted file went when a regular one was whole.
    assert not list((tmp_path / 'run').glob('interrupted*'))


def test_second_signal_ends_at_once(tmp_path, start):
    # Iterations take a minute, and the first has begun when the hook listens.
    process = start(tmp_path / 'run', data={'pause': 20.0})
    process.wait_for('Checkpoints will be saved')
    while 'once more ends at once' not in process.printed():
        process.send(signal.SIGTERM)
        time.sleep(1)
        if process.process.poll() is not None:
            break
    process.send(signal.SIGTERM)
    assert process.status() == -signal.SIGTERM
    assert 'once more ends at once' in process.printed()


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


def test_worker_that_dies_is_named_with_its_sample(tmp_path, start):
    process = start(tmp_path / 'run', workers=1, data={'bad': 5, 'how': 'dies'})
    assert process.status() == 1, process.printed()[-3000:]
    assert 'DataLoader worker' in process.printed()
    assert 'was at sample 5 (photos/5.jpg) of batch' in process.printed()


@pytest.mark.slow
def test_worker_that_hangs_is_named_with_its_sample(tmp_path, start):
    data = {'bad': 5, 'how': 'hangs'}
    process = start(tmp_path / 'run', workers=2, data=data, worker_timeout=10)
    assert process.status() == 1, process.printed()[-3000:]
    assert 'timed out after 10 seconds' in process.printed()
    assert 'was at sample 5 (photos/5.jpg) of batch' in process.printed()


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
