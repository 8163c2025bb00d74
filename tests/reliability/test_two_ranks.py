# SPDX-License-Identifier: Apache-2.0
"""Two processes under torchrun: one signal stops both, both resume, a dead one ends the other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ..conftest import ROOT
from .toy import ends_alike

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Ranks:
    """``torchrun`` with two processes of ``toy``."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.printed_to = folder.with_suffix('.out')
        self.begin = self.printed_to.stat().st_size if self.printed_to.exists() else 0
        options = {'launcher': 'pytorch', 'end': 3, 'interval': 1, **options}
        with open(self.printed_to, 'a') as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, '-m', 'torch.distributed.run', '--standalone'),
                    *('--nproc-per-node', '2', '-m', 'tests.reliability.toy', str(folder)),
                    *(f'{key}={value!r}' for key, value in options.items()),
                ],
                cwd=ROOT,
                env=os.environ
                | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self):
        return self.printed_to.read_text(errors='replace')[self.begin :]

    def wait_for(self, text):
        while text not in self.printed():
            assert self.process.poll() is None, self.printed()[-4000:]
            time.sleep(0.05)

    def pid(self, rank):
        return int((self.folder.parent / f'{self.folder.name}.rank{rank}').read_text())


@pytest.fixture
def ranks():
    started = []

    def begin(*arguments, **options):
        started.append(Ranks(*arguments, **options))
        return started[-1]

    yield begin
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()


@pytest.mark.parametrize('rank', [0, 1])
def test_signal_to_one_rank_stops_both_and_they_resume(tmp_path, ranks, rank):
    straight = ranks(tmp_path / 'straight')
    assert straight.process.wait() == 0, straight.printed()[-4000:]
    run = ranks(tmp_path / 'run', data={'pause': 0.3})
    run.wait_for('Epoch(train) [2][1/2]')
    os.kill(run.pid(rank), signal.SIGTERM)
    assert run.process.wait() == 1
    assert 'Exit status 75' in run.printed()
    assert len(re.findall(r'exitcode +: 75', run.printed())) >= 1
    resumed = ranks(tmp_path / 'run', resume=True)
    assert resumed.process.wait() == 0, resumed.printed()[-4000:]
    assert ends_alike(tmp_path / 'straight', tmp_path / 'run') == []


def test_rank_that_dies_is_named_and_ends_the_other(tmp_path, ranks):
    run = ranks(tmp_path / 'run', end=500)
    run.wait_for('Epoch(train) [2][1/2]')
    os.kill(run.pid(1), signal.SIGKILL)
    begin = time.monotonic()
    assert run.process.wait() == 1
    assert time.monotonic() - begin < 60
    root = run.printed().partition('Root Cause')[2]
    assert re.search(r'rank +: 1 ', root)
    assert 'exitcode  : -9' in root
    with pytest.raises(ProcessLookupError):
        os.kill(run.pid(0), 0)
