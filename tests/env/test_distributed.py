# SPDX-License-Identifier: Apache-2.0
"""Two processes on the CPU, started as mim starts them: gloo, training, validation, saving."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import torch

WORKER = """\
import sys

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.SyncBatchNorm(1, affine=False, momentum=0.0)
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)

    def forward(self, x, y, mode='tensor'):
        self.norm(x)
        error = self.line(x) - y
        return dict(loss=error.square().mean()) if mode == 'loss' else [error]


class Points(Dataset):
    metainfo = {}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        x = torch.tensor([float(index)])
        return dict(x=x, y=3 * x - 1)


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_batch['x'].flatten().tolist()

    def compute_metrics(self, results):
        return dict(seen=len(results), total=sum(results))


def loader():
    return dict(
        dataset=Points(), batch_size=2, num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'))


runner = Runner(
    Line(), sys.argv[1], launcher='pytorch',
    env_cfg=dict(dist_cfg=dict(backend='gloo')),
    train_dataloader=loader(),
    train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=3),
    val_dataloader=loader(), val_cfg=dict(), val_evaluator=Evaluator(Count(prefix='count')),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
    randomness=dict(seed=0), log_level='ERROR',
    default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3)),
)
runner.train()
scalars = {key: value.current() for key, value in runner.message_hub.log_scalars.items()}
torch.save(scalars, f'{sys.argv[1]}/rank{torch.distributed.get_rank()}')
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def expected_line() -> tuple[float, float]:
    """Gradient descent in float64 on the mean over both processes, batches as the sampler deals."""
    weight = bias = 0.0
    for _ in range(3):
        # Rank r gets every second point; two at a time: (0, 2) and (1, 3), then (4, 6) and (5, 7).
        for batch in ([0, 2, 1, 3], [4, 6, 5, 7]):
            errors = [(weight * x + bias) - (3 * x - 1) for x in batch]
            weight -= 0.01 * sum(2 * e * x for e, x in zip(errors, batch, strict=True)) / 4
            bias -= 0.01 * sum(2 * e for e in errors) / 4
    return weight, bias


def test_two_processes_train_what_one_would(tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    work = tmp_path / 'work'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    # openmim starts several processes through this module.
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.launch', '--use-env']
    command += ['--nproc_per_node=2', f'--master_port={free_port()}', str(script), str(work)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in work.glob('rank*')) == ['rank0', 'rank1']

    checkpoint = torch.load(work / 'epoch_3.pth')
    weight, bias = expected_line()
    state = checkpoint['state_dict']
    assert abs(state['line.weight'].item() - weight) < 1e-5
    assert abs(state['line.bias'].item() - bias) < 1e-5
    for rank in ('rank0', 'rank1'):
        scalars = torch.load(work / rank)
        assert scalars['val/count/seen'] == 8
        assert scalars['val/count/total'] == sum(range(8))
