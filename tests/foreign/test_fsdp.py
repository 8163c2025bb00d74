# SPDX-License-Identifier: Apache-2.0
"""FSDP of both generations, block by block, over two processes on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..conftest import ROOT
from ..scale.test_two_processes import free_port
from . import sharded_worker
from .networks import CASES, dense, reference_of, sample

pytestmark = pytest.mark.slow
WORKER = Path(sharded_worker.__file__)


@pytest.fixture(scope='module')
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    file = tmp_path_factory.mktemp('fsdp') / 'states.pt'
    environment = os.environ | {
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
    }
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += [f'--master_port={free_port()}', str(WORKER), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800)
    assert done.returncode == 0, done.stderr[-6000:]
    return torch.load(file)


@pytest.mark.parametrize('kind', sharded_worker.KINDS)
@pytest.mark.parametrize('name', CASES)
def test_a_step_of_two_processes_is_that_of_one(
    name: str, kind: str, sharded: dict[str, dict]
) -> None:
    """The plain reference, alone, with the whole batch."""
    case = CASES[name]
    model = dense(case).eval()
    reference = reference_of(case, model).double()
    first = {key: value.clone() for key, value in reference.state_dict().items()}
    sharded_worker.step(reference, sample(case, batch=4))
    found = sharded[kind][name]
    assert found.keys() == first.keys()
    moved = 0.0
    for key, want in reference.state_dict().items():
        moved = max(moved, float((want - first[key]).abs().max()))
        assert (found[key].double() - want).abs().max() <= 1e-5, key
    assert moved > 1e-3
