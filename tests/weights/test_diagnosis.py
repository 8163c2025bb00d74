# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of another network is refused in words that say what it is and what to do."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm import UniFormer2d, UniFormer3d
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import CheckpointError, load_weights

from .helpers import TINY, cheap_file, classifier_state, filled, meta_model, save, shapes_of


@pytest.mark.parametrize(
    ('held', 'built', 'options', 'message'),
    [
        ('small_plus', 'small', {},
         r"conv-stem checkpoint \(small_plus or small_plus_dim64\); the model is small; build the "
         r"model with arch='small_plus'.*patch_embed1\.proj\.0\.weight"),
        ('small', 'small_plus', {},
         r'patch-stem checkpoint \(small\); the model is small_plus'),
        ('small', 'base', {},
         r'this checkpoint is small \(depths \(3, 4, 8, 3\).*the model is base'),
        ('base_ls', 'base', {},
         r"layer-scale keys \(gamma_1, gamma_2\): use base_ls; the model is base"),
        ('base', 'base_ls', {},
         r'the model \(base_ls\) scales its residuals.*switched off.*layer_scale=False'),
        ('base_ls', 'base', {'layer_scale': 1e-6},
         r'scales residuals in stages 3 and 4, the model in all blocks'),
        ('tiny', 'small', {}, r"this checkpoint is tiny.*build the model with arch='tiny'"),
        ('large_ls_tl', 'base', {}, r'this checkpoint is large_ls_tl'),
        ('small', 'small', {'in_channels': 4},
         r'takes 3 input channels, the model 4; build it with in_channels=3'),
    ],
)  # fmt: skip
def test_wrong_arch(tmp_path, held, built, options, message):
    path = cheap_file(tmp_path / 'w.pth', held)
    with pytest.raises(CheckpointError, match=message):
        load_weights(meta_model(UniFormer2d, built, **options), path)


def test_light_checkpoints(tmp_path):
    state = classifier_state() | {'cls_token': torch.zeros(1, 1, 128)}
    with pytest.raises(CheckpointError, match=r'lightweight \(hourglass\) checkpoint'):
        load_weights(UniFormer2d(TINY), save(tmp_path / 'w.pth', {'model': state}))


def test_clips_into_images(tmp_path):
    path = save(tmp_path / 'w.pth', {'model_state': classifier_state(ndim=3)})
    with pytest.raises(CheckpointError, match=r'3-D weights into a 2-D model.*use UniFormer3d'):
        load_weights(UniFormer2d(TINY), path)


def test_dense_file_into_a_classifier(tmp_path):
    """The wrong task: a detector's backbone has no final BatchNorm."""
    state = {f'backbone.{k}': v for k, v in filled(shapes_of(UniFormer2d(TINY))).items()}
    path = save(tmp_path / 'w.pth', {'state_dict': state | {'neck.w': torch.zeros(1)}})
    message = r'dense backbone \(output norms 1, 2, 3, 4\), which lacks the final BatchNorm'
    for model in (UniFormer2dClassifier(TINY, num_classes=10), UniFormer3d(TINY)):
        with pytest.raises(CheckpointError, match=message):
            load_weights(model, path)


def test_divided_and_wider_time_kernels(tmp_path):
    divided = {'model_state': classifier_state(ndim=3, attention='divided')}
    with pytest.raises(CheckpointError, match=r"t_attn keys.*attention='divided'"):
        load_weights(UniFormer3d(TINY), save(tmp_path / 'd.pth', divided))
    wide = {'model_state': classifier_state(ndim=3, patch_kernel_t=3)}
    with pytest.raises(CheckpointError, match=r'time kernel of 3.*patch_kernel_t=3'):
        load_weights(UniFormer3d(TINY), save(tmp_path / 'w.pth', wide))


def test_mlp_ratio_and_missing_stages(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state(TINY | {'mlp_ratio': 3})})
    with pytest.raises(CheckpointError, match='mlp_ratio 3, the model 4'):
        load_weights(UniFormer2d(TINY), path)
    short = {k: v for k, v in classifier_state().items() if '4.' not in k.split('.')[0] + '.'}
    with pytest.raises(CheckpointError, match='holds 3 stages; the model has 4'):
        load_weights(UniFormer2d(TINY), save(tmp_path / 's.pth', {'model': short}))


def test_token_labels_need_their_classifier(tmp_path):
    state = classifier_state(TINY | {'token_labels': True})
    model = UniFormer2dClassifier(TINY, num_classes=10)
    with pytest.raises(CheckpointError, match=r'aux_head\.weight \(no place in the model\)'):
        load_weights(model, save(tmp_path / 'w.pth', {'model': state}))
    plain = save(tmp_path / 'p.pth', {'model': classifier_state()})
    model = UniFormer2dClassifier(TINY | {'token_labels': True}, num_classes=10)
    with pytest.raises(CheckpointError, match=r'aux_head\.weight \(not in the file\)'):
        load_weights(model, plain)


def test_missing_classifier(tmp_path):
    state = {k: v for k, v in classifier_state(ndim=3).items() if not k.startswith('head')}
    path = save(tmp_path / 'w.pth', {'model_state': state})
    with pytest.raises(CheckpointError, match=r'head\.weight \(not in the file\)'):
        load_weights(UniFormer3dClassifier(TINY, num_classes=10), path)
