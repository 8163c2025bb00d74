# SPDX-License-Identifier: Apache-2.0
"""All configs as trainings: batch, parameter groups and the rate of chosen iterations."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from uniformer_mm.optim import FusedAdamW
from uniformer_mm.recipes import find_recipe
from uniformer_mm.recipes.accumulation import accumulate

from .leaves import EXTRAS, OWNED, OWNERS, TRAINED, load, model, toolbox
from .official import TRAININGS, decays

PER_EPOCH = 53
"""Iterations of an epoch: few, so that the warm-ups counted in iterations reach over many."""


def groups(leaf: str, cfg: Config) -> torch.optim.Optimizer:
    """The optimizer that the config builds for its network, without fp16's need for a GPU."""
    wrapper = dict(cfg.optim_wrapper)
    if 'Amp' in wrapper['type'] or 'BFloat16' in wrapper['type']:
        wrapper = {k: v for k, v in wrapper.items() if k not in ('loss_scale', 'dtype', 'use_fsdp')}
        wrapper.pop('float32_modules', None)
        wrapper['type'] = 'OptimWrapper'
    with DefaultScope.overwrite_default_scope(toolbox(leaf.partition('/')[0])):
        return build_optim_wrapper(model(leaf), Config(wrapper)._cfg_dict).optimizer


@pytest.mark.parametrize('leaf', TRAINED)
def test_effective_batch_is_the_published_one(leaf):
    cfg, training = load(leaf), TRAININGS[OWNERS[leaf].id]
    assert cfg.train_dataloader.batch_size * OWNERS[leaf].gpus == training.batch
    assert cfg.auto_scale_lr.base_batch_size == training.batch
    assert not cfg.auto_scale_lr.enable
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == 1
    alone = accumulate(cfg, OWNERS[leaf].gpus)
    assert alone['optim_wrapper']['accumulative_counts'] == OWNERS[leaf].gpus
    assert alone['auto_scale_lr']['base_batch_size'] == cfg.train_dataloader.batch_size


@pytest.mark.parametrize('leaf', TRAINED)
def test_length_precision_and_clipping(leaf):
    cfg, training = load(leaf), TRAININGS[OWNERS[leaf].id]
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    assert length == training.length
    assert ('max_iters' in cfg.train_cfg) == leaf.startswith('seg/')
    assert cfg.optim_wrapper.type == ('AmpOptimWrapper' if training.half else 'OptimWrapper')
    clip = cfg.optim_wrapper.get('clip_grad') or {}
    assert clip.get('max_norm') == training.clip
    assert clip.get('norm_type', 2) == 2


@pytest.mark.parametrize('leaf', TRAINED)
def test_parameter_groups_follow_the_official_rule(leaf):
    cfg, training = load(leaf), TRAININGS[OWNERS[leaf].id]
    optimizer = groups(leaf, cfg)
    names = {id(p): name for name, p in model(leaf).named_parameters()}
    found = {
        names[id(p)]: (group['lr'], group['weight_decay'], group['betas'], group['eps'])
        for group in optimizer.param_groups
        for p in group['params']
    }
    expected = {
        name: (
            pytest.approx(training.lr, rel=1e-12),
            training.weight_decay if decays(name, p, training.free) else 0.0,
            (0.9, 0.999),
            1e-8,
        )
        for name, p in model(leaf).named_parameters()
    }
    assert type(optimizer) is FusedAdamW
    assert found == expected


@pytest.mark.parametrize('leaf', [*TRAINED, *EXTRAS])
def test_every_rule_of_the_optimizer_matches_a_parameter(leaf):
    names = [name for name, _ in model(leaf).named_parameters()]
    rules = load(leaf).optim_wrapper.get('paramwise_cfg') or {}
    for key in rules.get('custom_keys') or {}:
        assert any(key in name for name in names), key


def stepped(cfg: Config, lr: float, iterations: list[int]) -> dict[int, float]:
    """Rates at iterations, from the schedulers that the runner would build and step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    entries = cfg.param_scheduler
    schedulers = []
    for entry in [entries] if isinstance(entries, dict) else entries:
        entry = dict(entry)
        kind = PARAM_SCHEDULERS.get(entry.pop('type'))
        if entry.pop('convert_to_iter_based', False):
            schedulers.append(
                kind.build_iter_from_epoch(optimizer, epoch_length=PER_EPOCH, **entry)
            )
        else:
            schedulers.append(kind(optimizer, **entry))
    rates = {}
    for iteration in range(max(iterations) + 1):
        if iteration in iterations:
            rates[iteration] = optimizer.param_groups[0]['lr']
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % PER_EPOCH == 0:
                scheduler.step()
    return rates


@cache
def rates(schedule: str, lr: float, chosen: tuple[int, ...]) -> dict[int, float]:
    """Configs share schedules: each is stepped through once."""
    return stepped(Config.fromstring(schedule, '.py'), lr, list(chosen))


@pytest.mark.parametrize('leaf', TRAINED)
def test_learning_rate_equals_the_official_formula(leaf):
    cfg, training = load(leaf), TRAININGS[OWNERS[leaf].id]
    if leaf.startswith('seg/'):
        # tests/configs/test_seg.py goes through whole schedules.
        chosen = (0, 1, 499, 999, 1000, 1499, 1500, 4000)
    else:
        epochs = training.length
        last = epochs * PER_EPOCH - 1
        turns = (1, 2, 3, 5, 6, 8, 10, 11, 20, 21, 27, 33, 170, 200)
        chosen = [epoch * PER_EPOCH - side for epoch in turns for side in (0, 1)]
        chosen += [0, 1, 250, 499, 500, 501, 777, epochs * PER_EPOCH // 2, last]
        chosen = tuple(sorted({i for i in chosen if i <= last}))
    schedule = f'param_scheduler = {cfg.to_dict()["param_scheduler"]!r}'
    found = rates(schedule, cfg.optim_wrapper.optimizer.lr, chosen)
    for iteration, rate in found.items():
        expected = training.rate(iteration, PER_EPOCH)
        assert rate == pytest.approx(expected, rel=1e-6, abs=1e-12), iteration


@pytest.mark.parametrize('leaf', [leaf for leaf in OWNED if leaf not in TRAINED])
def test_other_configs_only_test(leaf):
    """Token labelling has no training here; windows for testing differ from their global twin."""
    cfg = load(leaf)
    if leaf.startswith('cls/'):
        assert not {'train_dataloader', 'optim_wrapper', 'train_cfg'} & set(cfg)
        return
    twin = load(find_recipe(OWNERS[leaf].training).config)
    assert cfg.model.backbone.attention != twin.model.backbone.attention
    for changed in ('attention', 'window_size'):
        cfg.model.backbone[changed] = twin.model.backbone[changed]
    assert cfg._cfg_dict == twin._cfg_dict
