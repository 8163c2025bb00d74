# SPDX-License-Identifier: Apache-2.0
"""Leaf configs that keep the published batch on fewer GPUs, against updates computed by hand."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from uniformer_mm.recipes.accumulation import accumulate, write_config

UPDATES = 12
LR, MOMENTUM, CLIP, DECAY = 0.3, 0.9, 0.7, 0.25
WARMUP = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5 + 1)]


class Toy(BaseModel):
    """One linear layer and the mean of squared errors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
            self.layer.bias.zero_()

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = 'tensor') -> dict:
        return {'loss': (self.layer(x).squeeze(1) - y).pow(2).mean()}


class Recorder(Hook):
    """Weights after each iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.weights.append(runner.model.layer.weight.detach().clone())


def samples(count: int) -> list[dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=rng) * 3
    return [dict(x=x[i], y=x[i].sum() + 1) for i in range(count)]


def published(schedulers: list[dict], hooks: list[dict]) -> Config:
    """A config as written for 4 GPUs of 2 samples."""
    return Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=LR, momentum=MOMENTUM),
                clip_grad=dict(max_norm=CLIP, norm_type=2),
            ),
            param_scheduler=schedulers,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=UPDATES, val_interval=4),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4)),
            custom_hooks=hooks,
            auto_scale_lr=dict(base_batch_size=8),
        )
    )


def by_hand(rate: Callable[[int], float]) -> list[torch.Tensor]:
    """Weights after each update of whole batches of 8 samples, in plain PyTorch."""
    model, data, weights = Toy(), samples(8 * UPDATES), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    for update in range(UPDATES):
        batch = data[8 * update : 8 * update + 8]
        x, y = (torch.stack([sample[key] for sample in batch]) for key in 'xy')
        optimizer.param_groups[0]['lr'] = rate(update)
        optimizer.zero_grad()
        model(x, y)['loss'].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        weights.append(model.layer.weight.detach().clone())
    return weights


def run(cfg: Config, folder: Path) -> Recorder:
    """mmengine's runner on one process, 2 samples an iteration."""
    recorder = Recorder()
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=samples(8 * UPDATES),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=cfg.optim_wrapper,
        param_scheduler=cfg.param_scheduler,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=cfg.train_cfg.max_iters),
        default_hooks=dict(logger=None, checkpoint=None),
        custom_hooks=[recorder, *cfg.get('custom_hooks', [])],
        default_scope='mmengine',
        experiment_name=folder.name,
    )
    runner.train()
    recorder.runner = runner
    return recorder


def leaf(cfg: Config, folder: Path, times: int = 4) -> Config:
    """The config through the file that the command writes."""
    cfg.dump(folder / 'base.py')
    write_config(folder / 'leaf.py', folder / 'base.py', times=times, title='Four at a time.')
    return Config.fromfile(folder / 'leaf.py')


def warmup(update: int) -> float:
    return 0.1 + 0.9 * min(update / 5, 1)


COSINE = [*WARMUP, dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, end=12)]
POLY = [*WARMUP, dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=12 + 1)]
STEPS = [*WARMUP, dict(type='MultiStepLR', milestones=[6, 9], gamma=0.1, by_epoch=False)]
LATE = [
    *WARMUP,
    dict(type='CosineAnnealingLR', eta_min=0.03, by_epoch=False, begin=6, end=12, T_max=6),
]


@pytest.mark.parametrize(
    ('schedulers', 'rate'),
    [
        (COSINE, lambda u: LR * warmup(u) * (1 + math.cos(math.pi * u / 12)) / 2),
        (POLY, lambda u: LR * warmup(u) * (1 - u / 12)),
        (STEPS, lambda u: LR * warmup(u) * 0.1 ** ((u >= 6) + (u >= 9))),
        (LATE, lambda u: LR * warmup(u) if u < 6
         else 0.03 + (LR - 0.03) * (1 + math.cos(math.pi * (u - 6) / 6)) / 2),
    ],
    ids=['cosine', 'poly', 'steps', 'late cosine'],
)  # fmt: skip
def test_updates_are_those_of_the_whole_batch(schedulers, rate, tmp_path):
    """Momentum, clipping and the rate of each update; nothing moves in between."""
    cfg = leaf(published(schedulers, []), tmp_path)
    weights = run(cfg, tmp_path).weights
    assert len(weights) == 4 * UPDATES
    for update, expected in enumerate(by_hand(rate)):
        torch.testing.assert_close(weights[4 * update + 3], expected, rtol=1e-5, atol=1e-6)
    for iteration in range(1, len(weights)):
        if iteration % 4 != 3:
            assert torch.equal(weights[iteration], weights[iteration - 1])


def test_amp_wrapper_scales_clips_and_skips_as_with_one_batch(tmp_path, monkeypatch):
    """The loss scale is taken off the sum of the iterations' gradients before they are clipped."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper as amp

    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp, 'GradScaler', lambda **kw: torch.amp.GradScaler('cpu', **kw))
    cfg = leaf(published(COSINE, []), tmp_path)
    # Half precision itself would hide errors of the update.
    monkeypatch.setattr('mmengine.runner.amp.autocast', lambda **_: contextlib.nullcontext())
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale=512.0)
    recorder = run(cfg, tmp_path)
    assert recorder.runner.optim_wrapper.loss_scaler.is_enabled()
    expected = by_hand(lambda u: LR * warmup(u) * (1 + math.cos(math.pi * u / 12)) / 2)
    for update, weight in enumerate(expected):
        torch.testing.assert_close(recorder.weights[4 * update + 3], weight, rtol=1e-4, atol=1e-5)


def test_moving_average_moves_once_an_update(tmp_path):
    hook = dict(type='EMAHook', momentum=DECAY)
    cfg = leaf(published(COSINE, [hook]), tmp_path)
    recorder = run(cfg, tmp_path)
    averaged = next(h for h in recorder.runner.hooks if type(h).__name__ == 'EMAHook').ema_model
    # From the weights before the first update on; the last update is not reached any more.
    expected = Toy().layer.weight.detach()
    for weight in recorder.weights[3:-1:4]:
        expected = (1 - DECAY) * expected + DECAY * weight
    torch.testing.assert_close(averaged.module.layer.weight.detach(), expected)


def test_what_counts_iterations_is_multiplied_and_shows_it(tmp_path):
    hook = dict(type='EMAHook', momentum=DECAY, begin_iter=6)
    cfg = leaf(published(COSINE, [hook, dict(type='SyncBuffersHook')]), tmp_path)
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert cfg.optim_wrapper.optimizer.lr == LR, 'the batch is the same, so is the rate'
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (48, 16)
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.default_hooks.checkpoint.interval == 16
    assert cfg.auto_scale_lr.base_batch_size == 2
    ema, sync = cfg.custom_hooks
    assert (ema.interval, ema.begin_iter, ema.momentum) == (4, 24, DECAY)
    assert sync == dict(type='SyncBuffersHook')
    text = (tmp_path / 'leaf.py').read_text()
    assert text.startswith('"""Four at a time."""')
    assert 'max_iters=12 * 4' in text
    assert 'end=6 * 4' in text


def test_what_counts_epochs_stays():
    schedulers = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=5, convert_to_iter_based=True),
        dict(type='MultiStepLR', milestones=[8, 11], by_epoch=True),
        dict(type='uniformer_mm.WarmupCosineLR', total=9, warmup=1, by_epoch=True),
    ]
    cfg = published(schedulers, [])
    cfg.train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    assert accumulate(cfg, 2) == dict(
        optim_wrapper=dict(accumulative_counts=2), auto_scale_lr=dict(base_batch_size=4)
    )


def test_iteration_based_parts_beside_epochs_are_stretched():
    """Detection: warm-up by iteration, steps by epoch."""
    steps = dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, by_epoch=True)
    cfg = published([*WARMUP, steps], [])
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
    warm, same = accumulate(cfg, 8)['param_scheduler']
    assert same == steps
    assert (warm['begin'], warm['end'], warm['start_factor']) == (7, 48, 0.1)


def test_refusals(tmp_path):
    cfg = published([dict(type='OneCycleLR', by_epoch=False, eta_max=1)], [])
    with pytest.raises(ValueError, match=r"'OneCycleLR' counts iterations, and its"):
        accumulate(cfg, 2)
    cfg = published(COSINE, [])
    cfg.strategy = dict(type='DeepSpeedStrategy')
    with pytest.raises(ValueError, match="strategy 'DeepSpeedStrategy' is set in the strategy"):
        accumulate(cfg, 2)
    with pytest.raises(ValueError, match='this config only tests: it has no training'):
        accumulate(Config(dict(model=dict())), 2)
    base = tmp_path / 'base.py'
    base.write_text('a = 1\n')
    with pytest.raises(ValueError, match=r'absent does not exist'):
        write_config(tmp_path / 'absent' / 'x.py', base, title='x')
    with pytest.raises(ValueError, match=r'a config must end in \.py'):
        write_config(tmp_path / 'x.yaml', base, title='x')
    with pytest.raises(ValueError, match=r'exists; --overwrite replaces it'):
        write_config(base, base, title='x')
    assert base.read_text() == 'a = 1\n'


def test_rates_of_a_real_schedule_hold_at_every_update(tmp_path):
    """UperNet's warm-up times its linear decay, on 2 of 8 GPUs, at chosen updates."""
    from mmengine.registry import PARAM_SCHEDULERS

    from uniformer_mm.recipes import config_root

    base = config_root() / 'seg/upernet_uniformer_s.py'
    write_config(tmp_path / 'leaf.py', base, times=4, title='x')
    cfg = Config.fromfile(tmp_path / 'leaf.py')
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=6e-5)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optimizer))
        for s in cfg.param_scheduler
    ]
    rates = []
    for iteration in range(4 * 2000):
        if iteration % 4 == 3:
            rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    u = np.arange(2000)
    expected = 6e-5 * (1 - u / 160_000) * (1 - (1 - np.minimum(u / 1500, 1)) * (1 - 1e-6))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
