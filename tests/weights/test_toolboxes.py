# SPDX-License-Identifier: Apache-2.0
"""One ImageNet file in official layout initialises all five tasks, from the configs as they are."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope
from torch import nn

from tests.conftest import ROOT
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import CheckpointError

from .helpers import cheap_file, filled, meta_model, save, shapes_of

FROM_IMAGENET = {
    'mmdet': 'configs/det/mask_rcnn_uniformer_s.py',
    'mmseg': 'configs/seg/upernet_uniformer_s.py',
    'mmpose': 'configs/pose/td_hm_uniformer_s_256x192.py',
    'mmaction': 'configs/video/uniformer_s_16x4_k400.py',
    'mmpretrain': 'configs/cls/uniformer_s_in1k.py',
}
OUTPUT_NORMS = {'mmdet': 4, 'mmseg': 4, 'mmpose': 1, 'mmaction': 0, 'mmpretrain': 0}
# Our own initialiser for the config that trains from random weights.
INIT = {'type': 'UniFormerPretrained', 'checkpoint': 'uniformer://small_in1k'}


@pytest.fixture(scope='module')
def imagenet_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """uniformer_small_in1k.pth as its authors save it, with other numbers."""
    state = filled(shapes_of(meta_model(UniFormer2dClassifier, 'small', num_classes=1000)))
    folder = tmp_path_factory.mktemp('weights')
    return save(folder / 'uniformer_small_in1k.pth', {'model': state}), state


def built_backbone(toolbox: str, config: str, weights: Path, monkeypatch) -> nn.Module:
    """The backbone of the config's model, after the toolbox initialised its weights."""
    pytest.importorskip(f'{toolbox}.models', reason=f'{toolbox} cannot be imported')
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(weights))
    models = importlib.import_module(f'{toolbox}.registry').MODELS
    cfg = Config.fromfile(ROOT / config)
    if 'init_cfg' not in cfg.model.backbone or cfg.model.backbone.init_cfg.type != INIT['type']:
        cfg.model.backbone.init_cfg = INIT
    with DefaultScope.overwrite_default_scope(toolbox):
        model = models.build(cfg.model)
        model.init_weights()
    return model.backbone


@pytest.mark.parametrize('toolbox', FROM_IMAGENET)
def test_every_backbone_tensor_is_the_files(toolbox, imagenet_file, monkeypatch):
    path, state = imagenet_file
    backbone = built_backbone(toolbox, FROM_IMAGENET[toolbox], path.parent, monkeypatch)
    fresh = []
    for key, value in backbone.state_dict().items():
        if key not in state:
            fresh.append(key)
            continue
        expected = state[key].numpy()
        if value.ndim > expected.ndim:
            frames = value.shape[2]
            expected = np.stack([expected] * frames, axis=2) / frames
        np.testing.assert_array_equal(value.numpy(), expected, err_msg=key)
    assert len(fresh) == 2 * OUTPUT_NORMS[toolbox]
    assert {key[:5] for key in fresh} <= {'norm1', 'norm2', 'norm3', 'norm4'}
    unused = set(state) - set(backbone.state_dict())
    assert {key.split('.')[0] for key in unused} <= {'head', 'norm'}


def test_something_something_starts_from_kinetics(tmp_path, monkeypatch):
    state = filled(shapes_of(meta_model(UniFormer3dClassifier, 'small', num_classes=400)))
    save(tmp_path / 'uniformer_small_k400_16x4.pth', {'model_state': state, 'cfg': 'MODEL: {}'})
    backbone = built_backbone(
        'mmaction', 'configs/video/uniformer_s_16_ssv2.py', tmp_path, monkeypatch
    )
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize('toolbox', FROM_IMAGENET)
def test_a_file_that_does_not_fit_stops_the_build(toolbox, tmp_path, monkeypatch):
    """mmengine's own initialiser would go on with random weights and one line of log."""
    cheap_file(tmp_path / 'uniformer_small_in1k.pth', 'small_plus')
    pytest.importorskip(f'{toolbox}.models', reason=f'{toolbox} cannot be imported')
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    models = importlib.import_module(f'{toolbox}.registry').MODELS
    backbone = Config.fromfile(ROOT / FROM_IMAGENET[toolbox]).model.backbone
    with DefaultScope.overwrite_default_scope(toolbox):
        model = models.build(backbone | {'init_cfg': INIT})
        with pytest.raises(CheckpointError, match='this is a conv-stem checkpoint'):
            model.init_weights()


def test_initialisation_is_told_to_mmengine(imagenet_file):
    """BaseModule keeps a record of what initialised each parameter."""
    from uniformer_mm import UniFormer2d
    from uniformer_mm.weights import UniFormerPretrained

    path, _ = imagenet_file
    model = meta_model(UniFormer2d, 'small').to_empty(device='cpu')
    model._params_init_info = {
        p: {'init_info': '', 'tmp_mean_value': torch.tensor(9.0)} for p in model.parameters()
    }
    UniFormerPretrained(path)(model)
    info = model._params_init_info[model.blocks3[0].attn.qkv.weight]['init_info']
    assert info == f'UniFormerPretrained: {path}'
