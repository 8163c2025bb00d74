# SPDX-License-Identifier: Apache-2.0
"""``load_from='uniformer://...'`` fills whole models of the toolboxes, strictly."""

from __future__ import annotations

import importlib

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from tests.conftest import ROOT
from uniformer_mm import UniFormer2d
from uniformer_mm.labels import class_names
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import load_zoo_checkpoint
from uniformer_mm.weights.files import META_KEY

from .helpers import filled, meta_model, save, shapes_of


def build(toolbox: str, config: str) -> nn.Module:
    pytest.importorskip(f'{toolbox}.models', reason=f'{toolbox} cannot be imported')
    cfg = Config.fromfile(ROOT / config)
    with DefaultScope.overwrite_default_scope(toolbox):
        return importlib.import_module(f'{toolbox}.registry').MODELS.build(cfg.model)


def test_image_classifier(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    state = filled(shapes_of(meta_model(UniFormer2dClassifier, 'small', num_classes=1000)))
    save(tmp_path / 'uniformer_small_in1k.pth', {'model': state})
    model = build('mmpretrain', 'configs/cls/uniformer_s_in1k.py')
    load_checkpoint(model, 'uniformer://small_in1k', strict=True)
    loaded = model.state_dict()
    for key, value in state.items():
        part = 'head.fc' if key.startswith('head.') else 'backbone'
        name = key.removeprefix('head.') if part == 'head.fc' else key
        assert torch.equal(loaded[f'{part}.{name}'], value), key


def test_recogniser_gets_its_order_of_classes(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    state = filled(shapes_of(meta_model(UniFormer3dClassifier, 'small', num_classes=400)))
    save(tmp_path / 'uniformer_small_k400_16x4.pth', {'model_state': state})
    model = build('mmaction', 'configs/video/uniformer_s_16x4_k400.py')
    checkpoint = load_checkpoint(model, 'uniformer://small_k400_16x4', strict=True)
    assert checkpoint['meta'][META_KEY]['class_order'] == 'kinetics400_alphabetical'
    assert torch.equal(
        model.backbone.blocks4[2].attn.qkv.weight, state['blocks4.2.attn.qkv.weight']
    )
    alphabetical = class_names('kinetics400_alphabetical')
    for index, name in enumerate(class_names('kinetics400_official')):
        row = alphabetical.index(name)
        assert torch.equal(model.cls_head.fc_cls.weight[row], state['head.weight'][index])
        assert model.cls_head.fc_cls.bias[row] == state['head.bias'][index]


def test_pose_rows_come_in_todays_names(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    trunk = filled(shapes_of(meta_model(UniFormer2d, 'small')))
    state = {f'backbone.{k}': v for k, v in trunk.items()}
    state['keypoint_head.final_layer.bias'] = torch.ones(17)
    save(tmp_path / 'top_down_256x192_global_small.pth', {'state_dict': state})
    checkpoint = load_zoo_checkpoint('uniformer://pose/s_256x192', 'cpu')
    assert set(checkpoint['state_dict']) == {
        *(f'backbone.{k}' for k in trunk), 'head.final_layer.bias',
    }  # fmt: skip
    metadata = checkpoint['state_dict']._metadata['backbone']
    assert metadata[META_KEY] == {'head_dim': 64}
