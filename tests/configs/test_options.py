# SPDX-License-Identifier: Apache-2.0
"""Option configs: what they change against their recipe, nothing else, and what it does."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from uniformer_mm.optim.bfloat16 import find_module
from uniformer_mm.weights.zoo import find_row

from ..conftest import ROOT, shared_dir
from ..optim.test_bfloat16 import narrow

EMA = dict(
    type='EMAHook',
    ema_type='ExponentialMovingAverage',
    momentum=2e-4,
    update_buffers=True,
    begin_iter=1500,
)
WEIGHTS = 'model.backbone.init_cfg.checkpoint'
# In mmdet, RoIAlign has no bfloat16 kernel and suppression on the CPU takes float32 only.
FLOAT32 = (
    'rpn_head.rpn_cls',
    'rpn_head.rpn_reg',
    'roi_head.bbox_roi_extractor',
    'roi_head.mask_roi_extractor',
)
AVERAGE = dict(type='uniformer_mm.TrackedEMAHook', momentum=1 - 0.99996, update_buffers=True)
# Option, its recipe, and every value that differs.
OPTIONS = {
    'cls/uniformer_s_in1k_compile.py': (
        'cls/uniformer_s_in1k.py',
        # The recipe's own hook stays.
        {'custom_hooks': [AVERAGE, dict(type='uniformer_mm.CompileHook')]},
    ),
    'det/mask_rcnn_uniformer_s_bf16.py': (
        'det/mask_rcnn_uniformer_s.py',
        {
            'float32_modules': FLOAT32,
            'optim_wrapper.type': 'uniformer_mm.BFloat16OptimWrapper',
            'optim_wrapper.float32_modules': FLOAT32,
            'custom_hooks': [
                dict(
                    type='uniformer_mm.InferenceAutocastHook',
                    dtype='bfloat16',
                    float32_modules=FLOAT32,
                )
            ],
        },
    ),
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
TOOLBOXES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg', 'video': 'mmaction'}


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


def watch(model: nn.Module, names: tuple[str, ...]) -> dict[str, set[tuple[bool, torch.dtype]]]:
    """(training, dtype of the output) of modules, noted as they are called."""
    seen: dict[str, set] = {name: set() for name in names}
    for name in names:

        def note(module: nn.Module, inputs: tuple, output: torch.Tensor, name: str = name) -> None:
            seen[name].add((module.training, output.dtype))

        find_module(model, name).register_forward_hook(note)
    return seen


def test_detection_trains_and_tests_in_bfloat16(tmp_path: Path) -> None:
    """One real step and one validation of the shipped config, made thin, on photos of COCO."""
    pytest.importorskip('mmdet.utils', reason='mmdet is not installed').register_all_modules(False)
    (tmp_path / 'coco').symlink_to(shared_dir('data', 'coco').resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(tmp_path))
        cfg = load('det/mask_rcnn_uniformer_s_bf16.py')
    narrow(cfg)
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg[name]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.indices = 2
        resize = next(step for step in loader.dataset.pipeline if step.type == 'Resize')
        resize.scale = (96, 96)
    model = cfg.model
    model.backbone.update(init_cfg=None, with_cp=(0, 0, 4, 0))
    # Emulated bfloat16 is slow; untrained scores are below every threshold.
    model.train_cfg.rcnn.sampler.num = 8
    model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 20
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=2)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint.update(by_epoch=False)
    cfg.visualizer.vis_backends = []
    cfg.update(work_dir=str(tmp_path / 'work'), param_scheduler=None, log_level='ERROR')
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.randomness = dict(seed=0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = Runner.from_cfg(cfg)
        before = runner.model.roi_head.bbox_head.fc_cls.weight.detach().clone()
        heads = ('roi_head.bbox_head.fc_cls', 'rpn_head.rpn_conv')
        seen = watch(runner.model, (*heads, *FLOAT32))
        runner.train()
    expected = dict.fromkeys(heads, torch.bfloat16) | dict.fromkeys(FLOAT32, torch.float32)
    assert seen == {name: {(True, d), (False, d)} for name, d in expected.items()}
    after = runner.model.roi_head.bbox_head.fc_cls.weight
    assert after.dtype == torch.float32
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() >= 0
