# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the lightweight models: all tensors accounted for, images into clips, errors."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import shared_dir
from uniformer_mm import UniFormer2d, UniFormer3d
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import CheckpointError, load_weights

from .helpers import TINY, cheap, cheap_file, classifier_state, equal, filled, meta_model, save

LIGHT = TINY | {'stem': 'conv', 'keep_ratios': ((1, 0.5), (0.5,))}
HEADS = {
    f'{name}.{part}' for name in ('head', 'head_cls', 'norm_cls') for part in ('weight', 'bias')
}


def released(case: str) -> dict[str, tuple[int, ...]]:
    """Official keys and shapes."""
    return json.loads(shared_dir('golden', 'cases', f'{case}.json').read_text())['keys']


@pytest.mark.parametrize(
    ('case', 'kind', 'options'),
    [
        ('cls_xxs', UniFormer2dClassifier, {'num_classes': 1000}),
        ('video_xxs_8f', UniFormer3dClassifier, {'num_classes': 400}),
        ('video_xxs_ls_4f', UniFormer3dClassifier, {'num_classes': 400, 'layer_scale': 0.1}),
        ('dense_xxs', UniFormer2d, {}),
    ],
)
def test_official_files_load_whole(tmp_path, case, kind, options):
    state = filled(released(case))
    model = kind('xxs', **options)
    report = load_weights(model, save(tmp_path / 'w.pth', {'model': state}))
    assert equal(model.state_dict(), {key: state[key] for key in model.state_dict()})
    assert (len(report.loaded), report.unused, report.newly_initialised) == (len(state), {}, {})
    assert report.head_dim == 28
    assert report.arch == ('custom' if 'layer_scale' in options else 'xxs')


def test_image_classifier_into_a_dense_backbone(tmp_path):
    """Recipes 1.10: heads and final norms stay behind, output norms are new."""
    state = classifier_state(LIGHT)
    path = save(tmp_path / 'w.pth', {'model': state})
    model = UniFormer2d(LIGHT)
    report = load_weights(model, path)
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in report.loaded)
    assert {'cls_token', 'cls_upsample.weight'} <= set(report.loaded)
    left = {key for keys in report.unused.values() for key in keys}
    assert left == HEADS | {key for key in state if key.startswith('norm.')}
    assert {key.split('.')[0] for keys in report.newly_initialised.values() for key in keys} == {
        f'norm{stage}' for stage in (1, 2, 3, 4)
    }
    for last, absent in ((1, {'cls_token', 'cls_upsample'}), (2, {'cls_upsample'})):
        report = load_weights(UniFormer2d(LIGHT, out_indices=(last,)), path)
        left = report.unused['stages that the model does not build']
        assert {key.split('.')[0] for key in left if key.startswith('cls_')} == absent


@pytest.mark.parametrize('layer_scale', [None, 0.1])
def test_images_into_clips(tmp_path, layer_scale):
    """Recipes 1.7 and 1.10: mean inflation; heads of other classes and scales are new."""
    state = classifier_state(LIGHT, classes=10)
    model = UniFormer3dClassifier(LIGHT, num_classes=5, layer_scale=layer_scale)
    report = load_weights(model, save(tmp_path / 'w.pth', {'model': state}))
    for key in report.loaded:
        value, source = model.state_dict()[key], state[key]
        if value.ndim == 5:
            frames = value.shape[2]
            source = torch.stack([source] * frames, 2) / frames
        torch.testing.assert_close(value, source, rtol=1e-6, atol=0, msg=key)
    fresh = {key for keys in report.newly_initialised.values() for key in keys}
    gammas = {key for key in model.state_dict() if '.gamma_' in key}
    assert len(gammas) == (0 if layer_scale is None else 2 * 5)
    assert fresh == gammas | {key for key in HEADS if not key.startswith('norm_cls')}
    assert all(torch.all(model.state_dict()[key] == 0.1) for key in gammas)


def test_clips_without_scales_into_a_network_with_them(tmp_path):
    """Trained without: there the scales would silence its blocks."""
    path = cheap_file(tmp_path / 'w.pth', 'xxs', ndim=3, classes=400)
    scaled = meta_model(UniFormer3dClassifier, 'xxs', num_classes=400, layer_scale=0.1)
    with pytest.raises(CheckpointError, match=r'scales its residuals and this checkpoint'):
        load_weights(scaled, path)
    path = cheap_file(tmp_path / 's.pth', 'xxs', ndim=3, classes=400, layer_scale=0.1)
    with pytest.raises(
        CheckpointError, match=r'this is xxs with residual scales; .*layer_scale=0\.1'
    ):
        load_weights(meta_model(UniFormer3dClassifier, 'xxs', num_classes=400), path)


@pytest.mark.parametrize(
    ('held', 'built', 'message'),
    [
        ('xs', 'xxs', r"this checkpoint is xs.*build the model with arch='xs'"),
        (
            'xxs',
            'small_plus',
            r'lightweight \(hourglass\) checkpoint \(xxs\); the model is small_plus',
        ),
        (
            'small',
            'xs',
            r'the model is lightweight \(xs\); this checkpoint \(small\) has no class token',
        ),
    ],
)
def test_other_archs(tmp_path, held, built, message):
    path = cheap_file(tmp_path / 'w.pth', held)
    with pytest.raises(CheckpointError, match=message):
        load_weights(meta_model(UniFormer2d, built), path)


def test_torn_files(tmp_path):
    state = cheap(classifier_state(LIGHT))
    for key in ('cls_token', 'head_cls.bias', 'cls_upsample.weight'):
        torn = {name: value for name, value in state.items() if name != key}
        path = save(tmp_path / 'w.pth', {'model': torn})
        with pytest.raises(CheckpointError, match=rf'{key} \(not in the file\)'):
            load_weights(UniFormer2dClassifier(LIGHT, num_classes=10), path)


def test_images_never_take_clips(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': cheap(classifier_state(LIGHT, ndim=3))})
    with pytest.raises(CheckpointError, match='3-D weights into a 2-D model'):
        load_weights(UniFormer2d(LIGHT), path)
    load_weights(UniFormer3d(LIGHT), path)
