# SPDX-License-Identifier: Apache-2.0
"""Official files fill the toolboxes' whole models, and give the official networks' outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from uniformer_mm.evaluation.running.analysis import suspect_order
from uniformer_mm.evaluation.running.store import PredictionStore, Stored
from uniformer_mm.evaluation.running.weights import load_model
from uniformer_mm.labels import permutation
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.models.arch import ARCHS
from uniformer_mm.recipes import find_recipe
from uniformer_mm.weights import CheckpointError

from .helpers import TINY, build_model, config_of, enter, shrink


def official(model: nn.Module, path: Path, container: str) -> Path:
    """A file as the authors' scripts write it."""
    torch.save({container: model.state_dict()}, path)
    return path


def test_kinetics_heads_are_brought_into_the_order_of_the_labels(tmp_path):
    pytest.importorskip('mmaction')
    enter('video')
    torch.manual_seed(0)
    source = UniFormer3dClassifier(TINY, num_classes=400).eval()
    file = official(source, tmp_path / 'uniformer.pth', 'model_state')
    model = build_model(shrink(config_of('video/uniformer_s_16x4_k400.py', tmp_path, tmp_path)))
    recipe = find_recipe('vid/k400_s_16x4')
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = source(clip)[0]
        for order in ('kinetics400_alphabetical', 'kinetics400_official'):
            loaded = load_model(model, file, 'video', recipe=recipe, class_order=order)
            assert loaded.tensors == len(model.state_dict())
            assert loaded.class_order.startswith('kinetics400_official (')
            logits = model.cls_head.fc_cls(model.backbone(clip).mean(dim=(2, 3, 4)))[0]
            rows = permutation('kinetics400_official', order)
            assert torch.allclose(logits, expected[rows], atol=1e-5)
    with pytest.raises(CheckpointError, match=r'has 400 classes, kinetics600_official has 600'):
        load_model(
            model, file, 'video', recipe=find_recipe('vid/k600_s_16x4'),
            class_order='kinetics600_official',
        )  # fmt: skip


def test_a_trained_checkpoint_has_the_order_of_its_labels(tmp_path):
    pytest.importorskip('mmaction')
    enter('video')
    config = shrink(config_of('video/uniformer_s_16x4_k400.py', tmp_path, tmp_path))
    source, model = build_model(config, seed=1), build_model(config, seed=2)
    file = official(source, tmp_path / 'epoch.pth', 'state_dict')
    loaded = load_model(model, file, 'video', class_order='kinetics400_alphabetical')
    assert 'not stated by the file' in loaded.class_order
    assert torch.equal(model.cls_head.fc_cls.weight, source.cls_head.fc_cls.weight)


def test_both_heads_of_a_light_network_are_brought_into_the_order_of_the_labels(tmp_path):
    pytest.importorskip('mmaction')
    enter('video')
    torch.manual_seed(0)
    source = UniFormer3dClassifier('xxs', num_classes=400).eval()
    file = official(source, tmp_path / 'xxs.pth', 'model_state')
    model = build_model(config_of('video/uniformer_xxs_16x128_k400.py', tmp_path, tmp_path))
    recipe = find_recipe('vid/k400_xxs_16x128')
    order = 'kinetics400_alphabetical'
    loaded = load_model(model, file, 'video', recipe=recipe, class_order=order)
    assert loaded.tensors == len(model.state_dict())
    rows = permutation('kinetics400_official', order)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(clip[:, None]), source(clip)[:, rows], atol=1e-5)
    assert torch.equal(model.backbone.head_cls.weight, source.head_cls.weight[rows])


def test_token_labelling_needs_both_of_its_heads(tmp_path):
    pytest.importorskip('mmpretrain')
    enter('cls')
    torch.manual_seed(0)
    source = UniFormer2dClassifier('small_tl', num_classes=1000).eval()
    assert ARCHS['small_tl'].token_labels
    file = official(source, tmp_path / 'tl.pth', 'model')
    model = build_model(config_of('cls/uniformer_s_tl_224.py', tmp_path, tmp_path), seed=3)
    assert load_model(model, file, 'cls').tensors == len(model.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model.backbone(image)[0], source(image), atol=1e-5)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith('aux_head')}
    torch.save({'model': state}, tmp_path / 'cut.pth')
    with pytest.raises(CheckpointError, match=r'2 tensors of the model are not in it.*aux_head'):
        load_model(model, tmp_path / 'cut.pth', 'cls')


def test_pose_files_of_mmpose_0_keep_norms_that_are_not_used(tmp_path):
    pytest.importorskip('mmpose')
    enter('pose')
    config = shrink(config_of('pose/td_hm_uniformer_s_256x192.py', tmp_path, tmp_path, boxes='gt'))
    source, model = build_model(config, seed=1), build_model(config, seed=2)
    state = {
        key.replace('head.', 'keypoint_head.', 1) if key.startswith('head.') else key: value
        for key, value in source.state_dict().items()
    }
    for stage in (1, 2, 3):
        for name in ('weight', 'bias'):
            state[f'backbone.norm{stage}.{name}'] = torch.ones(TINY['dims'][stage - 1])
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'pose.pth')
    load_model(model, tmp_path / 'pose.pth', 'pose')
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    state['extra.weight'] = torch.ones(3)
    torch.save({'state_dict': state}, tmp_path / 'more.pth')
    with pytest.raises(CheckpointError, match=r'1 of its tensors have no place.*extra\.weight'):
        load_model(model, tmp_path / 'more.pth', 'pose')


class Labelled:
    """The one fact of a record that matters here."""

    task = 'video'


@pytest.mark.parametrize('order', ['alphabetical', 'official'])
def test_labels_in_the_wrong_order_are_noticed(order, tmp_path):
    other = {'alphabetical': 'official', 'official': 'alphabetical'}[order]
    # A perfect classifier whose rows are in the other order than everybody takes them to be.
    rows = permutation(f'kinetics400_{other}', f'kinetics400_{order}')
    store = PredictionStore(tmp_path, {})
    for label in range(60):
        logits = torch.zeros(2, 400)
        logits[:, rows[label]] = 5.0
        result = {'logits': logits.numpy(), 'label': label}
        store.add([Stored(label, 'k', 'p', 0.0, [result])])
    words = suspect_order(tmp_path, Labelled(), f'kinetics400_{order}')
    assert words.startswith('class order mismatch: top-1 would be 100.0 instead of ')
    assert suspect_order(tmp_path, Labelled(), None) == ''
