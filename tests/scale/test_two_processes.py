# SPDX-License-Identifier: Apache-2.0
"""Two processes on the CPU make the updates of one with the same global batch.

Tolerance: 1e-5 on every weight after four updates of at most 1e-3 each, in float32. What is left is
the order in which gradients are added up; half the batch, or clipping each process by its own
norm, moves weights by 1e-4 and more.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ..conftest import ROOT

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed; make setup installs it')

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name('worker.py')
UPDATES, BATCH, CLASSES = 4, 8, 9
TOLERANCE = 1e-5


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def train(data: Path, processes: int, *runs: tuple[str, Path, int]) -> list[dict]:
    """Run ``worker.py``: what each run (mode, work folder, images per process) left behind.

    ``state`` of the checkpoint; ``norm`` of the last gradients and FSDP's ``units`` of each rank.
    """
    environment = os.environ | {
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': str(ROOT),
    }
    command = [sys.executable, '-W', 'ignore']
    if processes > 1:
        command += ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
        command += [f'--master_port={free_port()}']
    command += [str(WORKER), str(data)]
    command += [str(argument) for run in runs for argument in run]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return [
        dict(
            state=torch.load(work / f'iter_{UPDATES}.pth')['state_dict'],
            ranks=[torch.load(work / f'rank{rank}.pth') for rank in range(processes)],
        )
        for _, work, _ in runs
    ]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images in nine class folders: four global batches and one more image."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.RandomState(0)
    for index in range(UPDATES * BATCH + 1):
        folder = root / 'imagenet/train' / f'class{index % CLASSES}'
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.randint(0, 256, (72, 72, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{index}.png')
    return root


@pytest.fixture(scope='module')
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """One process with the global batch, and with half of it."""
    work = tmp_path_factory.mktemp('alone')
    return train(data, 1, ('one', work / 'whole', BATCH), ('one', work / 'half', BATCH // 2))


@pytest.fixture(scope='module')
def together(
    data: Path, alone: list[dict], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    """Two processes with half of the global batch each, by how they share the work."""
    work = tmp_path_factory.mktemp('together')
    modes = ('ddp', 'fsdp', 'resumed')
    found = train(data, 2, *((mode, work / mode, BATCH // 2) for mode in modes))
    return dict(zip(modes, found, strict=True))


def furthest(a: dict, b: dict) -> float:
    assert list(a) == list(b)
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def test_distributed_data_parallel_makes_the_same_updates(
    alone: list[dict], together: dict[str, dict]
) -> None:
    one, two = alone[0], together['ddp']
    assert furthest(two['state'], one['state']) < TOLERANCE
    assert two['ranks'][0]['norm'] == pytest.approx(one['ranks'][0]['norm'], rel=1e-4)


@pytest.mark.parametrize('mode', ['fsdp', 'resumed'])
def test_fully_sharded_data_parallel_makes_the_same_updates(
    mode: str, alone: list[dict], together: dict[str, dict]
) -> None:
    """With gradient checkpointing, clipping over both ranks, and a checkpoint that is whole."""
    one, two = alone[0], together[mode]
    assert furthest(two['state'], one['state']) < TOLERANCE
    blocks = [f'backbone.blocks{s + 1}.{i}' for s, n in enumerate((1, 1, 4, 1)) for i in range(n)]
    for rank in two['ranks']:
        assert rank['norm'] == pytest.approx(one['ranks'][0]['norm'], rel=1e-4)
        units = [name.replace('_fsdp_wrapped_module', '').strip('.') for name in rank['units']]
        assert [name.replace('..', '.') for name in units] == ['', *blocks]


def test_the_comparison_would_notice(data: Path, alone: list[dict]) -> None:
    """Half the global batch makes other updates, by far more than the tolerance."""
    one, half = alone
    assert furthest(half['state'], one['state']) > 10 * TOLERANCE
    assert one['ranks'][0]['norm'] > 0.5, 'clipping is at work'
    first = torch.load(data / 'first.pth')['state_dict']
    assert furthest(one['state'], first) > 100 * TOLERANCE
