# SPDX-License-Identifier: Apache-2.0
"""``mim train`` of the quickstarts, killed and resumed: the end is the same to the bit.

Kills hit at random moments and, at least once, a file that is being written.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uniformer_mm.synth import make_data

from ..conftest import ROOT
from .toy import ends_alike

# A few iterations of each, with workers, augmentation, dropout and everything else as configured.
SMALL = {'train_dataloader.dataset.indices': 24, 'val_dataloader.dataset.indices': 8}
EPOCHS = {
    'train_cfg.max_epochs': 3,
    'train_cfg.val_interval': 1,
    'default_hooks.checkpoint.interval': 1,
    'train_dataloader.batch_size': 4,
}
BY_ITERATION = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 4}
RUNS = {
    'det': ('mmdet', 'det/quickstart.py', SMALL | EPOCHS),
    'seg': (
        'mmseg',
        'seg/quickstart.py',
        {
            'train_cfg.max_iters': 12,
            'train_cfg.val_interval': 4,
            'default_hooks.checkpoint.interval': 2,
            'train_dataloader.batch_size': 2,
            'val_dataloader.dataset.indices': 2,
        },
    ),
    'pose': (
        'mmpose',
        'pose/quickstart.py',
        EPOCHS | {'train_dataloader.dataset.indices': 24},
    ),
    'kinetics': ('mmaction2', 'video/quickstart_kinetics.py', SMALL | EPOCHS),
    'ssv2': ('mmaction2', 'video/quickstart_ssv2.py', SMALL | EPOCHS),
    'cls': ('mmpretrain', 'cls/quickstart.py', SMALL | EPOCHS),
    'det, saved within epochs': ('mmdet', 'det/quickstart.py', SMALL | EPOCHS | BY_ITERATION),
    'cls, saved within epochs': ('mmpretrain', 'cls/quickstart.py', SMALL | EPOCHS | BY_ITERATION),
}


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A tiny synthetic world."""
    root = tmp_path_factory.mktemp('kills') / 'data'
    make_data(root, size='tiny', workers=1)
    return root


class Training:
    """``mim train`` in a process group of its own."""

    def __init__(self, name: str, data: Path, work: Path, resume: bool = False):
        package, config, options = RUNS[name]
        self.work = work
        self.printed_to = work.with_suffix('.out')
        self.begin = self.printed_to.stat().st_size if self.printed_to.exists() else 0
        pairs = [f'{key}={value}' for key, value in options.items()]
        with open(self.printed_to, 'a') as out:
            self.process = subprocess.Popen(
                [
                    *('mim', 'train', package, str(ROOT / 'configs' / config)),
                    *('--work-dir', str(work), *(['--resume'] if resume else [])),
                    *('--cfg-options', *pairs, 'default_hooks.logger.interval=1'),
                ],
                env=os.environ
                | {
                    'UNIFORMER_DATA': str(data),
                    'CUDA_VISIBLE_DEVICES': '',
                    'OMP_NUM_THREADS': '1',
                    'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
                    'PYTHONPATH': str(ROOT),
                },
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        """What this process has printed so far."""
        return self.printed_to.read_text(errors='replace')[self.begin :]

    def kill_when(self, condition, later: float = 0) -> bool:
        """Kill all of it when ``condition`` holds, or later; False where it has ended before."""
        while not condition():
            if self.process.poll() is not None:
                assert self.process.returncode == 0, self.printed()[-4000:]
                return False
            time.sleep(0.002)
        time.sleep(later)
        self.kill()
        return True

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        """Wait for a good end."""
        assert self.process.wait() == 0, self.printed()[-4000:]


@pytest.fixture
def train(data):
    """Starts trainings, and ends those that the test has left."""
    started = []

    def begin(*arguments, **options) -> Training:
        started.append(Training(arguments[0], data, *arguments[1:], **options))
        return started[-1]

    yield begin
    for training in started:
        training.kill()


def writes(training: Training):
    """True while a checkpoint is being written."""
    return lambda: any(training.work.glob('.*.pth.unfinished'))


def prints(training: Training, pattern: str):
    """True when the training has printed a line."""
    return lambda: re.search(pattern, training.printed()) is not None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_kills_change_nothing(tmp_path, train):
    straight = train('seg', tmp_path / 'straight')
    work = tmp_path / 'killed'
    killed = train('seg', work)
    # Two are there; the third is being written.
    assert killed.kill_when(lambda: len(list(work.glob('iter_*.pth'))) == 2 and writes(killed)())
    killed = train('seg', work, resume=True)
    assert killed.kill_when(prints(killed, r'Iter\(train\) \[ *[789]/12\]'))
    killed = train('seg', work, resume=True)
    assert killed.kill_when(prints(killed, r'aAcc'))
    train('seg', work, resume=True).finish()
    straight.finish()
    assert ends_alike(tmp_path / 'straight', work) == []


# With the eight runs, 24 kills.
KILLS = 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('name', RUNS)
def test_kills_at_random_moments_change_nothing(tmp_path, train, name):
    chance = random.Random(name)
    straight = train(name, tmp_path / 'straight')
    straight.finish()
    lines = straight.printed().count(' - INFO - ')
    work = tmp_path / 'killed'
    for number in range(KILLS):
        killed = train(name, work, resume=number > 0)
        if number == 1:
            killed.kill_when(writes(killed))
            continue
        # After some line of its log, and a moment.
        wanted = chance.randrange(lines)
        killed.kill_when(
            lambda wanted=wanted, killed=killed: killed.printed().count(' - INFO - ') > wanted,
            chance.random(),
        )
    train(name, work, resume=True).finish()
    assert ends_alike(tmp_path / 'straight', work) == []
    files = [{f.name for f in (tmp_path / run).glob('best_*')} for run in ('straight', 'killed')]
    assert files[0] == files[1]
