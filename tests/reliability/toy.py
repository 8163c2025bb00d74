# SPDX-License-Identifier: Apache-2.0
"""A run that takes a second: random samples from workers, dropout, a schedule, an average.

As a program (``python -m tests.reliability.toy FOLDER [OPTION=VALUE]``), it is a run to be killed.
"""

from __future__ import annotations

import ast
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

import uniformer_mm.reliability  # noqa: F401 (registers the hooks)

SAMPLES = 12
BATCH = 3


class Noisy(Dataset):
    """Samples that every kind of generator augments; ``bad`` ones go wrong as told."""

    metainfo: ClassVar = {}

    def __init__(self, bad=None, how=None, pause=0.0):
        self.bad, self.how, self.pause = bad, how, pause

    def __len__(self):
        return SAMPLES

    def get_data_info(self, index):
        return {'img_path': f'photos/{index}.jpg'}

    def __getitem__(self, index):
        time.sleep(self.pause)
        if index == self.bad:
            if self.how == 'dies':
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == 'hangs':
                time.sleep(600)
        noise = [random.random(), np.random.rand(), torch.rand(()).item(), index / SAMPLES]
        x = torch.tensor(noise, dtype=torch.float32)
        if index == self.bad and self.how == 'nan':
            x = x * float('nan')
        return {'x': x, 'y': x.sum()[None], 'index': index}


class Line(BaseModel):
    """One layer behind a dropout, and a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.line = torch.nn.Linear(4, 1)
        self.dropout = torch.nn.Dropout(0.3)
        # It is built before the runner seeds anything.
        torch.nn.init.constant_(self.line.weight, 0.1)
        torch.nn.init.zeros_(self.line.bias)

    def forward(self, x, y, index, mode='tensor'):
        error = self.line(self.dropout(self.norm(x))) - y
        return {'loss': error.square().mean()} if mode == 'loss' else [error]


class MeanError(BaseMetric):
    """Mean absolute error."""

    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0].abs().mean()))

    def compute_metrics(self, results):
        return {'error': np.float64(np.mean(results))}


def loader(workers, persistent, shuffle=True, sampler='DefaultSampler', data=None):
    return {
        'dataset': data or Noisy(),
        'batch_size': BATCH,
        'num_workers': workers,
        'persistent_workers': bool(workers) and persistent,
        'sampler': {'type': sampler, 'shuffle': shuffle},
        'collate_fn': {'type': 'default_collate'},
    }


def make_runner(
    work_dir,
    *,
    by_epoch=True,
    end=3,
    interval=1,
    save_by_epoch=None,
    workers=0,
    persistent=True,
    sampler='DefaultSampler',
    resume=False,
    seed=0,
    load_from=None,
    hooks=(),
    data=None,
    accumulate=1,
    validate=True,
    launcher='none',
    **checkpoint,
):
    """The runner; ``checkpoint`` goes to the checkpoint hook, and ``data`` to the training data."""
    save_by_epoch = by_epoch if save_by_epoch is None else save_by_epoch
    # Threads that wait for each other are slower than one where cores are shared.
    torch.set_num_threads(1)
    data = Noisy(**data) if isinstance(data, dict) else data
    length = {'max_epochs' if by_epoch else 'max_iters': end}
    validation = (
        {
            'val_dataloader': loader(workers, persistent, shuffle=False),
            'val_cfg': {},
            'val_evaluator': Evaluator(MeanError()),
        }
        if validate
        else {}
    )
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader(workers, persistent, sampler=sampler, data=data),
        train_cfg={'by_epoch': by_epoch, 'val_interval': 1 if by_epoch else 4, **length},
        optim_wrapper={
            'type': 'OptimWrapper',
            'accumulative_counts': accumulate,
            'optimizer': {'type': 'AdamW', 'lr': 0.05},
        },
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 3},
            {'type': 'CosineAnnealingLR', 'by_epoch': by_epoch, 'T_max': end},
        ],
        custom_hooks=[{'type': 'EMAHook'}, *hooks],
        default_hooks={
            'checkpoint': {
                'type': 'uniformer_mm.DurableCheckpointHook',
                'interval': interval,
                'by_epoch': save_by_epoch,
                'save_best': 'error' if validate else None,
                'rule': 'less',
                'max_keep_ckpts': 2,
                **checkpoint,
            },
            'nonfinite': {'type': 'uniformer_mm.NonFiniteLossHook'},
            'stop': {'type': 'uniformer_mm.StopOnSignalHook'},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        randomness={'seed': seed},
        # Message hubs are found by this name, which gets a time stamp in seconds.
        experiment_name=f'{work_dir}-{resume}-{time.time_ns()}',
        log_level='INFO',
        **validation,
        visualizer={'type': 'Visualizer', 'vis_backends': [{'type': 'LocalVisBackend'}]},
        launcher=launcher,
        env_cfg={'dist_cfg': {'backend': 'gloo'}},
        resume=resume,
        load_from=load_from,
    )


def hub(runner) -> MessageHub:
    """The runner's message hub."""
    return runner.message_hub


def newest(folder: Path) -> dict:
    """The checkpoint that ``last_checkpoint`` names."""
    file = (Path(folder) / 'last_checkpoint').read_text()
    return torch.load(file, map_location='cpu', weights_only=False)


def differences(one, two, path='') -> list[str]:
    """Where two checkpoints differ, except in what is a time or a path."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, two) else [path]
    if isinstance(one, dict):
        found = [] if list(one) == list(two) else [f'{path}: keys {list(one)} {list(two)}']
        for key in one:
            if key in two and not any(word in str(key) for word in ('time', 'ckpt', 'cfg')):
                found += differences(one[key], two[key], f'{path}/{key}')
        return found
    if isinstance(one, list | tuple):
        if len(one) != len(two):
            return [f'{path}: {len(one)} and {len(two)} entries']
        pairs = enumerate(zip(one, two, strict=True))
        return [part for i, (a, b) in pairs for part in differences(a, b, f'{path}/{i}')]
    if hasattr(one, '_log_history'):
        same = np.array_equal(one.data[0], two.data[0])
        return [] if same else [f'{path}: {one.data[0]} {two.data[0]}']
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, two) else [path]
    return [] if one == two else [f'{path}: {one} {two}']


def ends_alike(one: Path, two: Path) -> list[str]:
    """Differences of the newest checkpoints of two runs, time stamps aside."""
    a, b = newest(one), newest(two)
    for checkpoint in (a, b):
        # The version of mmengine comes with the commit that is checked out at the moment.
        for key in ('experiment_name', 'time', 'mmengine_version'):
            checkpoint['meta'].pop(key, None)
    return differences(a, b)


if __name__ == '__main__':
    options = dict(argument.split('=', 1) for argument in sys.argv[2:])
    options = {key: ast.literal_eval(value) for key, value in options.items()}
    folder = Path(sys.argv[1])
    (folder.parent / f'{folder.name}.rank{os.environ.get("RANK", 0)}').write_text(str(os.getpid()))
    make_runner(sys.argv[1], **options).train()
