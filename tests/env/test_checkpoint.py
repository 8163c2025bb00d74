# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a real runner: saved, read with weights_only, resumed to the same end."""

from __future__ import annotations

import pickle
import subprocess
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_from_local
from torch.utils.data import Dataset

EPOCHS = 4


class Line(BaseModel):
    """Fits y = 3x - 1."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)

    def forward(self, x, y, mode='tensor'):
        error = self.line(x) - y
        return dict(loss=error.square().mean()) if mode == 'loss' else [error]


class Points(Dataset):
    """Eight points, and meta information of the kinds that the toolboxes put into checkpoints."""

    metainfo: ClassVar = dict(
        classes=('a', 'b'),
        palette=[(1, 2, 3)],
        sigmas=np.ones(3, np.float32),
        colors=np.ones((2, 3), np.uint8),
        ids=np.arange(3),
        names=np.array(['nose']),
        nested=ConfigDict(a=1, b=[dict(c=2)]),
    )

    def __len__(self):
        return 8

    def __getitem__(self, index):
        x = torch.tensor([index / 8.0])
        return dict(x=x, y=3 * x - 1)


class MeanError(BaseMetric):
    """Returns NumPy scalars, as pycocotools and the toolboxes' metrics do."""

    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0].abs().mean()))

    def compute_metrics(self, results):
        return dict(error=np.float64(np.mean(results)), error32=np.float32(1), n=np.int64(8))


def loader(shuffle):
    return dict(
        dataset=Points(),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
    )


def runner(work_dir, epochs, schedulers, optim, resume=False):
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader(shuffle=False),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_dataloader=loader(shuffle=False),
        val_cfg=dict(),
        val_evaluator=Evaluator(MeanError()),
        optim_wrapper=dict(type='OptimWrapper', optimizer=optim),
        param_scheduler=schedulers,
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, save_best='error', rule='less'),
            logger=dict(type='LoggerHook', interval=1),
        ),
        randomness=dict(seed=0),
        # Message hubs are found by this name, which gets a time stamp in seconds.
        experiment_name=f'{work_dir}-{resume}',
        log_level='ERROR',
        resume=resume,
    )


SCHEDULES = {
    'warmup-multistep': [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type='MultiStepLR', milestones=[2], by_epoch=True),
    ],
    'cosine': [dict(type='CosineAnnealingLR', T_max=EPOCHS, by_epoch=True)],
    'one-cycle': [dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False)],
    'poly': [dict(type='PolyLR', power=0.9, begin=0, end=8, by_epoch=False)],
    'plateau': [dict(type='ReduceOnPlateauLR', monitor='error', patience=1)],
}
OPTIMIZERS = {
    'AdamW': dict(type='AdamW', lr=0.1),
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9),
    'RMSprop': dict(type='RMSprop', lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize(
    ('schedule', 'optimizer'),
    [*((schedule, 'AdamW') for schedule in SCHEDULES), ('cosine', 'SGD'), ('cosine', 'RMSprop')],
)
def test_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, schedule, optimizer):
    optim = OPTIMIZERS[optimizer]
    straight = runner(tmp_path / 'straight', EPOCHS, SCHEDULES[schedule], optim)
    straight.train()

    # The interrupted run plans the same epochs and is stopped after half of them.
    class StopTraining(Exception):  # noqa: N818
        pass

    half = runner(tmp_path / 'half', EPOCHS, SCHEDULES[schedule], optim)

    def stop(runner):
        if runner.epoch == EPOCHS // 2:
            raise StopTraining

    hook = Hook()
    hook.before_train_epoch = stop
    half.register_hook(hook)
    with pytest.raises(StopTraining):
        half.train()

    resumed = runner(tmp_path / 'half', EPOCHS, SCHEDULES[schedule], optim, resume=True)
    resumed.train()
    assert resumed.epoch == EPOCHS
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
    scalars = {
        run: MessageHub.get_instance(run.experiment_name).get_scalar('train/loss').data
        for run in (straight, resumed)
    }
    np.testing.assert_array_equal(*(values[0] for values in scalars.values()))


def test_checkpoint_reads_back_meta_information_of_all_kinds(tmp_path):
    run = runner(tmp_path / 'run', 1, SCHEDULES['cosine'], OPTIMIZERS['SGD'])
    run.train()
    checkpoint = load_from_local(str(tmp_path / 'run' / 'epoch_1.pth'), 'cpu')
    meta = checkpoint['meta']['dataset_meta']
    for name, value in Points.metainfo.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(meta[name], value)
            assert meta[name].dtype == value.dtype
        else:
            assert meta[name] == value
    assert isinstance(checkpoint['message_hub']['runtime_info']['best_score'], np.float64 | float)


class Payload:
    """What an attacker's file would hold."""

    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    'payload',
    [
        Payload(subprocess.check_call, ['true']),
        Payload(eval, '1'),
        Payload(getattr, torch.nn.Module, '__init__'),
        Payload(getattr, np.ndarray, 'tofile'),
    ],
    ids=['subprocess', 'eval', 'getattr', 'getattr-of-allowed-class'],
)
def test_weights_only_stays_on(tmp_path, payload):
    file = tmp_path / 'evil.pth'
    torch.save(dict(meta=payload), file)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        load_from_local(str(file), 'cpu')
