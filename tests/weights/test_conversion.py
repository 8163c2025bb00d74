# SPDX-License-Identifier: Apache-2.0
"""Conversion is the identity on every tensor and back, and says the class order."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import shared_dir
from uniformer_mm import UniFormer2d
from uniformer_mm.labels import class_names, permutation
from uniformer_mm.models import ARCHS, UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.models.arch import available_archs
from uniformer_mm.weights import CheckpointError, convert_file, load_weights
from uniformer_mm.weights.files import read_checkpoint
from uniformer_mm.weights.key_schemes import detect_scheme, write_scheme

from .helpers import (
    CLASSIFIERS,
    TINY,
    cheap_file,
    classifier_state,
    equal,
    filled,
    meta_model,
    save,
    shapes_of,
)

OPENMIXUP_KEYS = {
    'patch_embed1.proj.weight': 'backbone.patch_embed1.projection.weight',
    'patch_embed2.norm.bias': 'backbone.patch_embed2.norm.bias',
    'blocks1.0.norm1.running_mean': 'backbone.blocks1.0.bn1.running_mean',
    'blocks2.0.norm2.weight': 'backbone.blocks2.0.bn2.weight',
    'blocks3.1.norm1.weight': 'backbone.blocks3.1.ln1.weight',
    'blocks4.0.norm2.bias': 'backbone.blocks4.0.ln2.bias',
    'blocks3.0.mlp.fc1.weight': 'backbone.blocks3.0.ffn.fc1.weight',
    'blocks3.0.attn.qkv.weight': 'backbone.blocks3.0.attn.qkv.weight',
    'norm.running_var': 'backbone.norm3.running_var',
    'head.weight': 'head.fc.weight',
}


@pytest.mark.parametrize(
    'to', ['official', 'timm', 'mmpretrain', 'mmaction2', 'openmixup', 'mmpose']
)
@pytest.mark.parametrize('arch', available_archs())
def test_every_arch_there_and_back(arch, to):
    """Keys on shapes alone: the very tensor objects come back under their own names."""
    ndim = 3 if to == 'mmaction2' else 2
    state = dict(meta_model(CLASSIFIERS[ndim], arch, num_classes=1000).state_dict())
    there = write_scheme(state, detect_scheme(state), to)
    back = detect_scheme(there)
    assert back.scheme == (to if to != 'mmpose' else 'official')
    again = write_scheme(there, back, 'official')
    assert list(again) == list(state)
    assert all(again[key] is state[key] for key in state)


@pytest.mark.parametrize(
    ('case', 'to'), [('cls_xxs', 'openmixup'), ('video_xxs_ls_4f', 'mmaction2')]
)
def test_hourglass_archs_there_and_back(case, to):
    """The keys of the released lightweight models, one with residual scales."""
    text = shared_dir('golden', 'cases', f'{case}.json').read_text()
    state = {
        key: torch.empty(shape, device='meta') for key, shape in json.loads(text)['keys'].items()
    }
    assert {'cls_token', 'head_cls.weight'} <= set(state)
    there = write_scheme(state, detect_scheme(state), to)
    again = write_scheme(there, detect_scheme(there), 'official')
    assert all(again[key] is state[key] for key in state) and len(again) == len(state)


def test_openmixup_names():
    """Against names written out from its code, not from our table."""
    state = classifier_state()
    there = write_scheme(state, detect_scheme(state), 'openmixup')
    for official, own in OPENMIXUP_KEYS.items():
        assert torch.equal(there[own], state[official])
    assert len(there) == len(state)


@pytest.mark.parametrize(
    'to', ['official', 'timm', 'mmpretrain', 'openmixup', 'mmpose', 'safetensors']
)
def test_files_there_and_back(tmp_path, to):
    if to == 'safetensors':
        pytest.importorskip('safetensors')
    state = classifier_state()
    path = save(tmp_path / 'w.pth', {'model': state, 'meta': {'note': 'kept'}})
    there, record = convert_file(path, to=to)
    assert there.parent == tmp_path
    assert there.suffix == ('.safetensors' if to == 'safetensors' else '.pth')
    assert record['layout'] == to if to != 'safetensors' else 'official'
    assert read_checkpoint(there).meta['note'] == 'kept'
    model = UniFormer2dClassifier(TINY, num_classes=10)
    load_weights(model, there)
    assert equal(model.state_dict(), state)
    back, _ = convert_file(there, to='official', output=tmp_path / 'back.pth')
    content = torch.load(back, weights_only=True)
    assert set(content) == {'model', 'meta'}
    assert equal(content['model'], state)


@pytest.mark.parametrize('arch', ['tiny', 'small_plus', 'small_tl'])
def test_files_of_real_archs_there_and_back(tmp_path, arch):
    state = filled(shapes_of(meta_model(UniFormer2dClassifier, arch, num_classes=1000)))
    path = save(tmp_path / 'w.pth', {'model': state})
    there, record = convert_file(path, to='openmixup', arch=arch)
    assert (record['arch'], record['head_dim']) == (arch, ARCHS[arch].head_dim)
    back, _ = convert_file(there, to='official', output=tmp_path / 'back.pth')
    assert equal(torch.load(back, weights_only=True)['model'], state)


def test_pose_head_names(tmp_path):
    trunk = {f'backbone.{k}': v for k, v in filled(shapes_of(UniFormer2d(TINY))).items()}
    head = {
        'deconv_layers.0.weight': torch.ones(2), 'final_layer.bias': torch.ones(17),
    }  # fmt: skip
    state = trunk | {f'keypoint_head.{k}': v for k, v in head.items()}
    path = save(tmp_path / 'w.pth', {'state_dict': state})
    there, _ = convert_file(path, to='mmpose')
    written = torch.load(there, weights_only=True)['state_dict']
    assert equal(written, trunk | {f'head.{k}': v for k, v in head.items()})
    back, _ = convert_file(there, to='official', output=tmp_path / 'back.pth')
    assert equal(torch.load(back, weights_only=True)['state_dict'], state)


def test_detectors_keep_their_parts(tmp_path):
    trunk = {f'backbone.{k}': v for k, v in filled(shapes_of(UniFormer2d(TINY))).items()}
    state = trunk | {'neck.w': torch.ones(2), 'roi_head.b': torch.ones(3)}
    path = save(tmp_path / 'w.pth', {'state_dict': state})
    there, _ = convert_file(path, to='official')
    assert equal(torch.load(there, weights_only=True)['state_dict'], state)
    with pytest.raises(
        CheckpointError, match=r'openmixup keys are for classifiers.*neck, roi_head'
    ):
        convert_file(path, to='openmixup')


def test_what_a_scheme_cannot_hold(tmp_path):
    flat = save(tmp_path / 'a.pth', {'model': classifier_state()})
    with pytest.raises(
        CheckpointError, match='mmaction2 has a 3-D UniFormer only; this one is 2-D'
    ):
        convert_file(flat, to='mmaction2')
    clips = save(tmp_path / 'b.pth', {'model_state': classifier_state(ndim=3)})
    with pytest.raises(CheckpointError, match='openmixup has a 2-D UniFormer only'):
        convert_file(clips, to='openmixup')
    with pytest.raises(ValueError, match=r"to='onnx' is not known"):
        convert_file(flat, to='onnx')


def test_nothing_is_overwritten_or_half_written(tmp_path, monkeypatch):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    there, _ = convert_file(path, to='timm')
    first = there.read_bytes()
    with pytest.raises(ValueError, match='exists; choose another name'):
        convert_file(path, to='timm')

    def fail(content, target):
        target.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(ValueError, match='No space left'):
        convert_file(path, to='timm', overwrite=True)
    assert there.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ['w.pth', 'w_timm.pth']


def test_stated_arch_must_fit(tmp_path):
    path = cheap_file(tmp_path / 'w.pth', 'small')
    with pytest.raises(CheckpointError, match=r"arch='base' does not fit the tensors; .* small"):
        convert_file(path, to='timm', arch='base')
    path = cheap_file(tmp_path / 'tl.pth', 'small_tl')
    with pytest.raises(CheckpointError, match="arch='small' does not fit"):
        convert_file(path, to='timm', arch='small')


# Class orders.


@pytest.mark.parametrize('classes', [400, 600])
def test_orders_are_those_of_the_reference_lists(classes):
    listed = shared_dir('labels', f'kinetics{classes}_uniformer_order.txt').read_text().splitlines()
    assert list(class_names(f'kinetics{classes}_official')) == listed
    assert list(class_names(f'kinetics{classes}_alphabetical')) == sorted(listed)
    assert len(set(listed)) == classes


def test_alphabetical_is_not_official():
    assert class_names('kinetics400_official')[:2] == ('riding a bike', 'marching')
    assert class_names('kinetics400_alphabetical')[:2] == ('abseiling', 'air drumming')
    assert class_names('kinetics600_official')[0] == 'feeding_fish'


def test_permutation_by_hand():
    rows = permutation('kinetics400_official', 'kinetics400_alphabetical')
    have, want = class_names('kinetics400_official'), class_names('kinetics400_alphabetical')
    for target in (0, 17, 399):
        assert have[rows[target]] == want[target]
    back = permutation('kinetics400_alphabetical', 'kinetics400_official')
    assert [rows[i] for i in back] == list(range(400))
    with pytest.raises(ValueError, match='orders of different classes'):
        permutation('kinetics400_official', 'kinetics600_official')
    with pytest.raises(ValueError, match=r"class_order='k400' is not known"):
        class_names('k400')


@pytest.mark.parametrize('classes', [400, 600])
def test_heads_are_permuted_there_and_back(tmp_path, classes):
    official, alphabetical = (f'kinetics{classes}_{o}' for o in ('official', 'alphabetical'))
    state = classifier_state(ndim=3, classes=classes)
    path = save(tmp_path / 'w.pth', {'model_state': state})
    there, record = convert_file(path, to='mmaction2', class_order=official, permute=alphabetical)
    assert record['class_order'] == alphabetical
    written = torch.load(there, weights_only=True)
    assert written['meta']['uniformer_mm']['class_order'] == alphabetical
    names = class_names(alphabetical)
    for index, name in enumerate(class_names(official)):
        for part in ('weight', 'bias'):
            row = written['state_dict'][f'cls_head.fc_cls.{part}'][names.index(name)]
            assert torch.equal(row, state[f'head.{part}'][index])
    back, record = convert_file(there, to='official', output=tmp_path / 'back.pth')
    assert record['class_order'] == official
    content = torch.load(back, weights_only=True)
    assert equal(content['model_state'], state)


def test_known_orders_follow_the_target(tmp_path):
    """mmaction2 scores against alphabetical labels, so a known official head is permuted."""
    state = classifier_state(ndim=3, classes=400)
    path = save(tmp_path / 'w.pth', {'model_state': state})
    known, _ = convert_file(path, to='official', class_order='kinetics400_official')
    assert equal(torch.load(known, weights_only=True)['model_state'], state)
    _, record = convert_file(known, to='mmaction2')
    assert record['class_order'] == 'kinetics400_alphabetical'
    unknown, record = convert_file(path, to='mmaction2', output=tmp_path / 'u.pth')
    assert 'class_order' not in record
    head = torch.load(unknown, weights_only=True)['state_dict']['cls_head.fc_cls.weight']
    assert torch.equal(head, state['head.weight'])


def test_orders_are_checked_at_load(tmp_path):
    path = save(tmp_path / 'w.pth', {'model_state': classifier_state(ndim=3, classes=400)})
    known, _ = convert_file(path, to='official', class_order='kinetics400_official')
    model = UniFormer3dClassifier(TINY, num_classes=400)
    report = load_weights(model, known, class_order='kinetics400_official')
    assert 'class order kinetics400_official' in str(report)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    message = r'in the order kinetics400_official \(recorded in the file\).*alphabetical.*is wanted'
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, known, class_order='kinetics400_alphabetical')
    with pytest.raises(CheckpointError, match='does not say the class order'):
        load_weights(model, path, class_order='kinetics400_official')
    assert equal(model.state_dict(), before)
    # A backbone takes no rows of the head, so their order does not matter.
    trunk = UniFormer3dClassifier(TINY, num_classes=0)
    load_weights(trunk, known, class_order='kinetics400_alphabetical')


def test_order_of_zoo_rows(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    save(
        tmp_path / 'uniformer_small_k400_16x4.pth',
        {'model_state': torch.load(
            cheap_file(tmp_path / 'x.pth', 'small', ndim=3, classes=400), weights_only=True
        )['model']},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r'kinetics400_official \(zoo row vid/k400_s_16x4\)'):
        load_weights(
            meta_model(UniFormer3dClassifier, 'small', num_classes=400),
            'uniformer://small_k400_16x4',
            class_order='kinetics400_alphabetical',
        )


def test_stated_orders_must_agree(tmp_path):
    path = save(tmp_path / 'w.pth', {'model_state': classifier_state(ndim=3, classes=400)})
    known, _ = convert_file(path, to='official', class_order='kinetics400_official')
    with pytest.raises(CheckpointError, match='contradicts the file, whose rows are in the order'):
        convert_file(known, to='timm', class_order='kinetics400_alphabetical')
    with pytest.raises(CheckpointError, match='does not say which order its classes have now'):
        convert_file(path, to='timm', permute='kinetics400_alphabetical')
    with pytest.raises(CheckpointError, match=r'has 600 classes, the file has 400\.'):
        convert_file(path, to='timm', class_order='kinetics600_official')
    with pytest.raises(ValueError, match='orders of different classes'):
        convert_file(known, to='timm', permute='kinetics600_alphabetical')
    with pytest.raises(ValueError, match=r"class_order='k400' is not known; use one of"):
        load_weights(UniFormer3dClassifier(TINY, num_classes=400), known, class_order='k400')
