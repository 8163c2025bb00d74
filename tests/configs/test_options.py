# SPDX-License-Identifier: Apache-2.0
"""Option configs: what they change against their recipe, nothing else, and what it does."""

from __future__ import annotations

import importlib

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, DefaultScope
from torch import nn

from uniformer_mm.optim.bfloat16 import find_module
from uniformer_mm.weights.zoo import find_row

from ..conftest import ROOT

EMA = dict(
    type='EMAHook',
    ema_type='ExponentialMovingAverage',
    momentum=2e-4,
    update_buffers=True,
    begin_iter=1500,
)
WEIGHTS = 'model.backbone.init_cfg.checkpoint'
# Option, its recipe, and every value that differs.
OPTIONS = {
    'det/mask_rcnn_uniformer_s_frozen_bn.py': (
        'det/mask_rcnn_uniformer_s.py',
        {'model.backbone.norm_eval': True},
    ),
    'det/mask_rcnn_uniformer_s_tl.py': (
        'det/mask_rcnn_uniformer_s.py',
        {'model.backbone.arch': 'small_tl', WEIGHTS: 'uniformer://small_tl_224'},
    ),
    'det/mask_rcnn_uniformer_s_tl_dim64.py': (
        'det/mask_rcnn_uniformer_s.py',
        {'model.backbone.arch': 'small_tl_dim64', WEIGHTS: 'uniformer://small_dim64_tl_224'},
    ),
    'seg/upernet_uniformer_b_layer_decay.py': (
        'seg/upernet_uniformer_b.py',
        {
            'optim_wrapper.constructor': 'uniformer_mm.LayerDecayConstructor',
            'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.95,
        },
    ),
    'seg/upernet_uniformer_s_ema.py': ('seg/upernet_uniformer_s.py', {'custom_hooks': [EMA]}),
    'video/uniformer_s_16x4_k400_bf16.py': (
        'video/uniformer_s_16x4_k400.py',
        {
            'optim_wrapper.type': 'uniformer_mm.BFloat16OptimWrapper',
            'optim_wrapper.float32_modules': ('cls_head',),
        },
    ),
}
TOOLBOXES = {'det': 'mmdet', 'seg': 'mmseg', 'video': 'mmaction'}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def leaves(cfg: dict, prefix: str = '') -> dict[str, object]:
    """Values by dotted key; only dicts are entered."""
    found = {}
    for key, value in cfg.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = value
    return found


def outline(name: str) -> nn.Module:
    """The option's model without memory behind its parameters."""
    toolbox = TOOLBOXES[name.split('/')[0]]
    pytest.importorskip(toolbox, reason=f'{toolbox} is not installed; make setup installs it')
    importlib.import_module(f'{toolbox}.utils').register_all_modules(init_default_scope=False)
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    models = importlib.import_module(f'{toolbox}.registry').MODELS
    with DefaultScope.overwrite_default_scope(toolbox), torch.device('meta'):
        return models.build(cfg.model)


@pytest.mark.parametrize('name', OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(name: str) -> None:
    recipe, expected = OPTIONS[name]
    option, published = leaves(load(name).to_dict()), leaves(load(recipe).to_dict())
    changed = {key: value for key, value in option.items() if published.get(key) != value}
    assert changed == expected
    assert set(published) <= set(option)


@pytest.mark.parametrize('name', OPTIONS)
def test_the_document_names_every_option(name: str) -> None:
    assert f'`configs/{name}`' in (ROOT / 'docs/options.md').read_text()


def test_frozen_means_statistics_and_not_parameters() -> None:
    backbone = outline('det/mask_rcnn_uniformer_s_frozen_bn.py').train().backbone
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2 * (3 + 4)
    assert not any(norm.training for norm in norms)
    assert all(p.requires_grad for p in backbone.parameters())
    assert backbone.blocks3[0].training


@pytest.mark.parametrize(
    ('name', 'head_dim'),
    [('det/mask_rcnn_uniformer_s_tl.py', 32), ('det/mask_rcnn_uniformer_s_tl_dim64.py', 64)],
)
def test_token_labelling_weights_meet_their_head_dim(name: str, head_dim: int) -> None:
    backbone = outline(name).backbone
    row = find_row(load(name).model.backbone.init_cfg.checkpoint.removeprefix('uniformer://'))
    assert backbone.arch.head_dim == row.head_dim == head_dim
    assert row.arch == load(name).model.backbone.arch
    assert backbone.blocks3[0].attn.head_dim == head_dim
    # The dense head of token labelling is no part of a backbone.
    assert sum(p.numel() for p in backbone.parameters()) == 21_033_280


def test_layer_decay_keeps_the_recipe_s_rule_for_norms() -> None:
    name = 'seg/upernet_uniformer_b_layer_decay.py'
    model, cfg = outline(name), load(name)
    with DefaultScope.overwrite_default_scope('mmseg'):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    of = {id(group['params'][0]): (group['lr'], group['weight_decay']) for group in groups}
    backbone = model.backbone
    assert of[id(backbone.patch_embed1.proj.weight)] == (pytest.approx(6e-5 * 0.95**41), 0.01)
    assert of[id(backbone.patch_embed1.norm.weight)] == (pytest.approx(6e-5 * 0.95**41), 0.0)
    assert of[id(backbone.blocks4[6].attn.qkv.weight)] == (pytest.approx(6e-5 * 0.95), 0.01)
    assert of[id(backbone.norm1.weight)] == (6e-5, 0.0)
    assert of[id(model.decode_head.conv_seg.weight)] == (6e-5, 0.01)


def test_the_moving_average_can_be_built() -> None:
    (hook,) = load('seg/upernet_uniformer_s_ema.py').custom_hooks
    built = HOOKS.build(dict(hook))
    assert (built.begin_iter, built.ema_cfg['momentum']) == (1500, 2e-4)


def test_bfloat16_finds_its_head_and_keeps_the_recipe_s_clipping() -> None:
    name = 'video/uniformer_s_16x4_k400_bf16.py'
    model, cfg = outline(name), load(name)
    with DefaultScope.overwrite_default_scope('mmaction'):
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert find_module(model, *wrapper.float32_modules) is model.cls_head
    assert wrapper.clip_grad_kwargs == dict(max_norm=20, norm_type=2)
