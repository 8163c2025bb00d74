# SPDX-License-Identifier: Apache-2.0
"""Layer-wise learning rates in every toolbox, against a walk over the blocks from the output."""

from __future__ import annotations

import importlib

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from uniformer_mm.models import UniFormer2d

from ..conftest import ROOT

RATE = 0.9
TINY = dict(depths=(1, 2, 4, 1), dims=(8, 8, 16, 16), head_dim=8)
CONFIGS = {
    'mmdet': 'det/mask_rcnn_uniformer_s.py',
    'mmseg': 'seg/upernet_uniformer_s.py',
    'mmpose': 'pose/td_hm_uniformer_s_256x192.py',
    'mmaction': 'video/uniformer_s_16x4_k400.py',
    'mmpretrain': 'cls/uniformer_s_in1k.py',
}


def outline(cfg: Config, toolbox: str) -> nn.Module:
    importlib.import_module(f'{toolbox}.utils').register_all_modules(init_default_scope=False)
    models = importlib.import_module(f'{toolbox}.registry').MODELS
    with DefaultScope.overwrite_default_scope(toolbox), torch.device('meta'):
        return models.build(cfg.model)


def groups_of(model: nn.Module, optim_wrapper: dict, toolbox: str) -> dict[str, tuple]:
    """(lr, weight_decay) by parameter name."""
    with DefaultScope.overwrite_default_scope(toolbox):
        optimizer = build_optim_wrapper(model, optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }


def expected_scales(model: nn.Module) -> dict[str, float]:
    """Count blocks from the output; a downsampling goes with the block before it."""
    scales, steps = {}, 0
    for stage in (4, 3, 2, 1):
        for block in reversed(getattr(model.backbone, f'blocks{stage}')):
            steps += 1
            scales |= dict.fromkeys(map(id, block.parameters()), RATE**steps)
        embed = getattr(model.backbone, f'patch_embed{stage}')
        scales |= dict.fromkeys(map(id, embed.parameters()), RATE ** (steps + 1))
    return {name: scales.get(id(p), 1.0) for name, p in model.named_parameters()}


@pytest.mark.parametrize('toolbox', CONFIGS)
def test_rates_fall_block_by_block_and_decay_stays_the_recipe_s(toolbox: str) -> None:
    pytest.importorskip(toolbox, reason=f'{toolbox} is not installed; make setup installs it')
    cfg = Config.fromfile(ROOT / 'configs' / CONFIGS[toolbox])
    cfg.model.backbone.update(init_cfg=None, arch='small')
    cfg.optim_wrapper.type = 'OptimWrapper'
    model = outline(cfg, toolbox)
    plain = groups_of(model, cfg.optim_wrapper, toolbox)
    cfg.optim_wrapper.constructor = 'uniformer_mm.LayerDecayConstructor'
    rules = cfg.optim_wrapper.get('paramwise_cfg') or {}
    cfg.optim_wrapper.paramwise_cfg = dict(rules, layer_decay_rate=RATE)
    decayed = groups_of(model, cfg.optim_wrapper, toolbox)
    scales = expected_scales(model)
    assert len(decayed) == len(plain) == len(scales)
    for name, (lr, weight_decay) in decayed.items():
        assert lr == pytest.approx(plain[name][0] * scales[name], rel=1e-12), name
        assert weight_decay == plain[name][1], name
    lowest = min(lr for lr, _ in decayed.values())
    assert decayed['backbone.patch_embed1.proj.weight'][0] == lowest
    assert lowest == pytest.approx(cfg.optim_wrapper.optimizer.lr * RATE ** (18 + 1))


def test_mmpretrain_s_own_constructor_agrees() -> None:
    """Another implementation, fed with the same ``get_layer_depth``."""
    pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
    cfg = Config.fromfile(ROOT / 'configs' / CONFIGS['mmpretrain'])
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.paramwise_cfg = dict(layer_decay_rate=RATE)
    model = outline(cfg, 'mmpretrain')
    ours, theirs = (
        groups_of(model, dict(cfg.optim_wrapper, constructor=constructor), 'mmpretrain')
        for constructor in (
            'uniformer_mm.LayerDecayConstructor',
            'LearningRateDecayOptimWrapperConstructor',
        )
    )
    assert set(ours) == set(theirs)
    for name, group in ours.items():
        assert group == pytest.approx(theirs[name]), name


class Net(nn.Module):
    """A backbone and a head, as every toolbox names them."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.backbone = UniFormer2d(TINY, **options)
        self.head = nn.Linear(16, 3)


def wrapper_cfg(**paramwise) -> dict:
    return dict(
        type='OptimWrapper',
        constructor='uniformer_mm.LayerDecayConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=paramwise,
    )


def test_custom_rules_hold_and_their_rates_multiply() -> None:
    rules = {'norm': dict(decay_mult=0.0), 'blocks4': dict(lr_mult=5.0, decay_mult=2.0)}
    groups = groups_of(
        Net(), wrapper_cfg(layer_decay_rate=0.5, custom_keys=rules, bias_decay_mult=0.3), 'mmengine'
    )
    assert groups['head.weight'] == (1.0, 0.1)
    assert groups['head.bias'] == (1.0, pytest.approx(0.03))
    # The longest matching key wins in mmengine.
    assert groups['backbone.blocks4.0.norm1.weight'] == (5.0 * 0.5, 0.2)
    assert groups['backbone.blocks3.3.norm1.weight'] == (0.5**2, 0.0)
    assert groups['backbone.blocks3.3.attn.qkv.weight'] == (0.5**2, 0.1)
    assert groups['backbone.norm4.weight'] == (1.0, 0.0)


def test_depths_count_only_the_stages_that_exist() -> None:
    backbone = UniFormer2d(TINY, out_indices=(1,))
    assert backbone.get_layer_depth('patch_embed1.proj.bias') == (0, 5)
    assert backbone.get_layer_depth('blocks1.0.norm1.bias') == (1, 5)
    assert backbone.get_layer_depth('patch_embed2.proj.bias') == (1, 5)
    assert backbone.get_layer_depth('body.blocks2.1.norm1.bias', 'body.') == (3, 5)
    assert backbone.get_layer_depth('norm2.weight') == (4, 5)
    assert backbone.get_layer_depth('blocks1.0.norm1.bias', 'body.') == (4, 5), 'not the backbone'


def test_two_backbones_have_their_own_depths() -> None:
    pair = nn.ModuleDict({'student': Net(), 'teacher': Net(out_indices=(0,))})
    groups = groups_of(pair, wrapper_cfg(layer_decay_rate=0.5), 'mmengine')
    assert groups['student.backbone.blocks1.0.norm1.weight'][0] == 0.5**8
    assert groups['teacher.backbone.blocks1.0.norm1.weight'][0] == 0.5
    assert groups['teacher.head.weight'][0] == 1.0


@pytest.mark.parametrize('rate', [None, 0, -0.5, 1.5, 'high'])
def test_impossible_rates_are_refused(rate) -> None:
    with pytest.raises(ValueError, match='layer_decay_rate='):
        build_optim_wrapper(Net(), wrapper_cfg(layer_decay_rate=rate))


def test_a_model_without_uniformer_is_refused() -> None:
    with pytest.raises(ValueError, match='Linear has none'):
        build_optim_wrapper(nn.Linear(2, 2), wrapper_cfg(layer_decay_rate=0.9))


def test_a_missing_rate_is_refused() -> None:
    cfg = wrapper_cfg(layer_decay_rate=0.9)
    cfg['optimizer'].pop('lr')
    with pytest.raises(ValueError, match='lr must be given'):
        build_optim_wrapper(Net(), cfg)
