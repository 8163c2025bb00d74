# SPDX-License-Identifier: Apache-2.0
"""The FSDP and DeepSpeed configs: units, decay and clipping are those of the recipe."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
import torch
from mmengine import Config
from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, HOOKS, STRATEGIES, DefaultScope
from torch import nn
from torch.distributed.fsdp import StateDictType

from uniformer_mm.models.arch import ARCHS
from uniformer_mm.optim.bfloat16 import find_module
from uniformer_mm.optim.sharding import clip_sharded_grad_norm

from ..conftest import ROOT

TOOLBOXES = {'det': 'mmdet', 'video': 'mmaction'}
FSDP = [
    'det/mask_rcnn_uniformer_b_fsdp.py',
    'det/mask_rcnn_uniformer_l_fsdp.py',
    'video/uniformer_b_16x4_k400_fsdp.py',
]
DEEPSPEED = [
    'det/mask_rcnn_uniformer_b_deepspeed.py',
    'video/uniformer_b_16x4_k400_deepspeed.py',
]


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def recipe_of(name: str) -> Config:
    return load(re.sub('_(fsdp|deepspeed)', '', name))


def toolbox_of(name: str) -> str:
    return TOOLBOXES[name.split('/')[0]]


def outline(name: str) -> nn.Module:
    """The model without memory behind its parameters."""
    toolbox = toolbox_of(name)
    pytest.importorskip(toolbox, reason=f'{toolbox} is not installed; make setup installs it')
    importlib.import_module(f'{toolbox}.utils').register_all_modules(init_default_scope=False)
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    models = importlib.import_module(f'{toolbox}.registry').MODELS
    with DefaultScope.overwrite_default_scope(toolbox), torch.device('meta'):
        return models.build(cfg.model)


def groups_of(model: nn.Module, optim_wrapper: dict, toolbox: str) -> dict[str, tuple]:
    """(lr, weight_decay) by parameter name, as the rules give them to whole parameters."""
    optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=optim_wrapper['optimizer'],
        paramwise_cfg=optim_wrapper['paramwise_cfg'],
    )
    with DefaultScope.overwrite_default_scope(toolbox):
        groups = build_optim_wrapper(model, optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in groups
        for p in group['params']
    }


@pytest.mark.parametrize('name', FSDP)
def test_the_policy_wraps_every_block_and_nothing_else(name: str) -> None:
    model, cfg = outline(name), load(name)
    policy = FUNCTIONS.get(cfg.strategy.model_wrapper.auto_wrap_policy)
    wrapped = [
        module_name
        for module_name, module in model.named_modules()
        if policy(module=module, recurse=False, nonwrapped_numel=0)
    ]
    depths = ARCHS[cfg.model.backbone.arch].depths
    assert wrapped == [
        f'backbone.blocks{stage}.{index}'
        for stage, depth in enumerate(depths, 1)
        for index in range(depth)
    ]
    assert policy(module=model, recurse=True, nonwrapped_numel=10**9)


@pytest.mark.parametrize('name', FSDP)
def test_the_strategy_builds_and_saves_whole_checkpoints(name: str) -> None:
    cfg = load(name)
    assert cfg.runner_type == 'FlexibleRunner'
    strategy = STRATEGIES.build(cfg.strategy.to_dict())
    assert strategy.state_dict_type == StateDictType.FULL_STATE_DICT
    assert strategy.model_wrapper['use_orig_params'], 'rules by name need original parameters'


@pytest.mark.parametrize('name', [*FSDP, *DEEPSPEED])
def test_rates_and_decay_are_the_recipe_s(name: str) -> None:
    model, cfg = outline(name), load(name)
    recipe = cfg if 'uniformer_l' in name else recipe_of(name)
    toolbox = toolbox_of(name)
    assert groups_of(model, cfg.optim_wrapper, toolbox) == groups_of(
        model, recipe.optim_wrapper, toolbox
    )
    rules = cfg.optim_wrapper.paramwise_cfg
    assert 'fsdp' not in name or 'flat_decay_mult' not in rules, 'FSDP flattens every parameter'


@pytest.mark.parametrize('name', [*FSDP[::2], *DEEPSPEED])
def test_data_schedule_and_batch_are_the_recipe_s(name: str) -> None:
    cfg, recipe = load(name), recipe_of(name)
    for key in ('train_dataloader', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert cfg[key] == recipe[key]
    changed = {k for k, v in cfg.model.backbone.items() if recipe.model.backbone.get(k) != v}
    assert changed <= {'with_cp'}


def test_l_is_l() -> None:
    model = outline('det/mask_rcnn_uniformer_l_fsdp.py')
    dims = ARCHS['large_ls_tl'].dims
    assert [conv.conv.in_channels for conv in model.neck.lateral_convs] == list(dims)
    assert model.backbone.cp_blocks == (0, 0, 24, 0)
    # recipes 1.1: 99,462,888 without the dense head; less the classifier and its BatchNorm, more
    # four output norms.
    classifier = 640 * 1000 + 1000 + 2 * 640
    expected = 99_462_888 - classifier + 2 * sum(dims)
    assert sum(p.numel() for p in model.backbone.parameters()) == expected


@pytest.mark.parametrize('name', DEEPSPEED)
def test_deepspeed_is_told_what_the_recipe_says(name: str) -> None:
    cfg, recipe = load(name), recipe_of(name)
    assert cfg.runner_type == 'FlexibleRunner'
    strategy = cfg.strategy
    assert strategy.train_micro_batch_size_per_gpu == recipe.train_dataloader.batch_size
    clip = recipe.optim_wrapper.get('clip_grad') or {}
    assert strategy.get('gradient_clipping') == clip.get('max_norm')
    taken = set(inspect.signature(DeepSpeedOptimWrapper).parameters)
    assert set(cfg.optim_wrapper) - {'type', 'paramwise_cfg'} <= taken
    assert strategy.config.torch_autocast.dtype == 'bfloat16'


@pytest.mark.parametrize('name', DEEPSPEED)
def test_what_computes_in_float32_exists(name: str) -> None:
    model = outline(name)
    (hook,) = load(name).custom_hooks
    for module in HOOKS.build(dict(hook)).modules:
        assert isinstance(find_module(model, module), nn.Module)


def test_without_deepspeed_mmengine_says_so() -> None:
    if importlib.util.find_spec('deepspeed') is not None:
        pytest.skip('DeepSpeed is installed')
    with pytest.raises(AssertionError, match='DeepSpeed is not installed'):
        STRATEGIES.build(load(DEEPSPEED[0]).strategy.to_dict())


def test_the_hook_keeps_modules_in_float32_only_while_training() -> None:
    class Runner:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    runner = Runner()
    hook = HOOKS.build(dict(type='uniformer_mm.Float32ModulesHook', modules=('1',)))
    x = torch.ones(1, 2)
    with torch.autocast('cpu', torch.bfloat16):
        hook.before_train(runner)
        assert (runner.model[0](x).dtype, runner.model(x).dtype) == (torch.bfloat16, torch.float32)
        hook.after_train(runner)
        assert runner.model(x).dtype == torch.bfloat16


@pytest.mark.parametrize('kind', ['ShardedOptimWrapper', 'ShardedBFloat16OptimWrapper'])
def test_sharded_wrappers_clip_across_ranks_and_values_as_ever(kind: str) -> None:
    cfg = dict(type=f'uniformer_mm.{kind}', optimizer=dict(type='SGD', lr=0.1))
    by_norm = build_optim_wrapper(nn.Linear(2, 2), dict(cfg, clip_grad=dict(max_norm=1)))
    assert by_norm.clip_func is clip_sharded_grad_norm
    by_value = dict(cfg, clip_grad=dict(type='value', clip_value=1))
    assert build_optim_wrapper(nn.Linear(2, 2), by_value).clip_func is nn.utils.clip_grad_value_
    assert build_optim_wrapper(nn.Linear(2, 2), cfg).clip_grad_kwargs is None


def test_clipping_in_one_process_is_torch_s() -> None:
    torch.manual_seed(0)
    ours = [
        nn.Parameter(torch.randn(3, 4)),
        nn.Parameter(torch.randn(7)),
        nn.Parameter(torch.ones(0)),
    ]
    for p in ours:
        p.grad = torch.randn_like(p) * 5
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        q.grad = p.grad.clone()
    norm = clip_sharded_grad_norm(ours, max_norm=2.0, norm_type=2)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, 2.0))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    with pytest.raises(ValueError, match='norm_type=1'):
        clip_sharded_grad_norm(ours, max_norm=2.0, norm_type=1)
