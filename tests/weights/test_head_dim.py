# SPDX-License-Identifier: Apache-2.0
"""head_dim leaves no trace in any shape, so everything else that states it must agree."""

from __future__ import annotations

import argparse

import pytest
import torch

from uniformer_mm import UniFormer2d, UniFormer3d
from uniformer_mm.models import ARCHS, UniFormer2dClassifier
from uniformer_mm.weights import CheckpointError, convert_file, load_weights, zoo
from uniformer_mm.weights.provenance import FROM_ARCH

from .helpers import TINY, cheap_file, classifier_state, meta_model, save

# Loading into a network without storage changes nothing, and torch says so.
pytestmark = pytest.mark.filterwarnings('ignore:.*non-meta parameter.*')

SMALL = {'depths': ARCHS['small'].depths, 'dims': ARCHS['small'].dims}


@pytest.fixture
def published(monkeypatch):
    """Give a row of the zoo the hashes of a file that lies here."""

    def publish(row_id: str, path) -> None:
        from uniformer_mm.weights.files import file_digests

        md5 = file_digests(path)['md5']
        row = next(row for row in zoo.rows() if row.id == row_id)
        drive = next(mirror for mirror in row.mirrors if mirror.kind == 'drive')
        monkeypatch.setitem(drive.__dict__, 'md5', md5)

    return publish


def test_archs_state_it():
    assert [ARCHS[a].head_dim for a in ('small', 'small_tl', 'small_plus', 'base_tl_dim64')] == [
        64, 32, 32, 64,
    ]  # fmt: skip


def test_files_from_elsewhere_take_it_from_the_arch(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    for head_dim in (16, 32):
        report = load_weights(UniFormer2d(TINY | {'head_dim': head_dim}), path)
        assert report.head_dim == head_dim
        assert f'head_dim {head_dim} ({FROM_ARCH})' in str(report)


@pytest.mark.parametrize(
    ('row', 'held', 'built'),
    [
        ('cls/s_plus', 'small_plus', 'small_plus_dim64'),
        ('cls/s_plus_dim64', 'small_plus_dim64', 'small_plus'),
        ('cls/s', 'small', SMALL | {'head_dim': 32}),
        ('cls_tl/s_dim64_224', 'small_tl_dim64', 'small_tl'),
        ('cls_tl/s_224', 'small_tl', 'small_tl_dim64'),
    ],
)
def test_known_hash_contradicts(tmp_path, published, row, held, built):
    path = cheap_file(tmp_path / 'w.pth', held)
    published(row, path)
    right, wrong = ARCHS[held].head_dim, 96 - ARCHS[held].head_dim
    message = (
        rf'trained with {right} \(its hash is that of zoo row {row}\), the model has {wrong} \(arch'
    )
    with pytest.raises(CheckpointError, match=message):
        load_weights(meta_model(UniFormer2d, built), path)


def test_known_hash_agrees(tmp_path, published):
    path = cheap_file(tmp_path / 'w.pth', 'small_tl_dim64')
    published('cls_tl/s_dim64_224', path)
    report = load_weights(meta_model(UniFormer2d, 'small_tl_dim64'), path)
    assert report.head_dim_source == 'its hash is that of zoo row cls_tl/s_dim64_224'
    assert report.source == f'cls_tl/s_dim64_224 {path}'


def test_zoo_name_contradicts(tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))
    cheap_file(tmp_path / 'uniformer_small_in1k.pth', 'small')
    with pytest.raises(CheckpointError, match=r'trained with 64 \(zoo row cls/s\).*has 32'):
        load_weights(meta_model(UniFormer2d, 'small', head_dim=32), 'uniformer://small_in1k')


@pytest.mark.parametrize(
    ('held', 'built', 'states'),
    [
        ('small_tl', 'small', 'token labelling, small_tl; the re-trained small_tl_dim64 has 64'),
        ('base_tl', 'base', 'token labelling, base_tl; the re-trained base_tl_dim64 has 64'),
        ('small_plus_tl', 'small_plus_dim64', 'token labelling, small_plus_tl'),
    ],
)
def test_aux_head_tells(tmp_path, held, built, states):
    path = cheap_file(tmp_path / 'w.pth', held)
    with pytest.raises(CheckpointError, match=rf'trained with 32 \(aux_head keys: {states}.*64'):
        load_weights(meta_model(UniFormer2d, built), path)


def test_aux_head_agrees_with_its_archs(tmp_path):
    path = cheap_file(tmp_path / 'w.pth', 'small_tl')
    assert load_weights(meta_model(UniFormer2d, 'small_tl'), path).head_dim_source.startswith(
        'aux_head keys'
    )
    # The re-trained files have the same keys; choosing their arch states 64.
    assert (
        load_weights(meta_model(UniFormer2d, 'small_tl_dim64'), path).head_dim_source == FROM_ARCH
    )
    assert load_weights(meta_model(UniFormer2d, 'small', head_dim=32), path).head_dim == 32


def test_training_arguments_tell(tmp_path):
    path = cheap_file(tmp_path / 'w.pth', 'small_plus')
    content = torch.load(path, weights_only=True)
    content['args'] = argparse.Namespace(model='uniformer_small_plus_dim64')
    save(path, content)
    message = r'with 64 \(its training arguments name small_plus_dim64\), the model has 32'
    with pytest.raises(CheckpointError, match=message):
        load_weights(meta_model(UniFormer2d, 'small_plus'), path)


def test_training_arguments_of_another_model_do_not_count(tmp_path):
    """The official script of the large 384 model names small_plus."""
    path = cheap_file(tmp_path / 'w.pth', 'small')
    content = torch.load(path, weights_only=True)
    content['args'] = argparse.Namespace(model='uniformer_small_plus')
    report = load_weights(meta_model(UniFormer2d, 'small'), save(path, content))
    assert report.head_dim_source == FROM_ARCH


@pytest.mark.parametrize(
    'config',
    [
        "model = dict(backbone=dict(type='uniformer_mm.UniFormer2d', arch='small_plus'))",
        "model = dict(backbone=dict(type='UniFormer', embed_dim=[1, 2], head_dim=32))",
        "model = dict(backbone=dict(type='UniFormer2d', arch=dict(depths=[1], head_dim=32)))",
    ],
)
def test_training_configuration_tells(tmp_path, config):
    content = {'state_dict': classifier_state(), 'meta': {'cfg': config}}
    path = save(tmp_path / 'w.pth', content)
    assert load_weights(UniFormer2d(TINY), path).head_dim_source == 'its training configuration'
    with pytest.raises(CheckpointError, match=r'with 32 \(its training configuration\).*has 16'):
        load_weights(UniFormer2d(TINY | {'head_dim': 16}), path)


def test_configuration_text_is_never_run(tmp_path):
    touched = tmp_path / 'touched'
    config = f"open({str(touched)!r}, 'w')\nmodel = dict(type='UniFormer2d', head_dim=32)\n"
    path = save(tmp_path / 'w.pth', {'state_dict': classifier_state(), 'meta': {'cfg': config}})
    load_weights(UniFormer2d(TINY), path)
    assert not touched.exists()


def test_our_own_record_tells(tmp_path):
    path = cheap_file(tmp_path / 'w.pth', 'small_plus')
    written, record = convert_file(path, to='mmpretrain', arch='small_plus')
    assert record['head_dim'] == 32
    message = r'with 32 \(recorded in the file by uniformer_mm\), the model has 64'
    with pytest.raises(CheckpointError, match=message):
        load_weights(meta_model(UniFormer2d, 'small_plus_dim64'), written)


def test_video_training_configuration_tells(tmp_path):
    content = {
        'model_state': classifier_state(ndim=3),
        'cfg': 'UNIFORMER:\n  HEAD_DIM: 64\nMODEL:\n  NUM_CLASSES: 400\n',
    }
    with pytest.raises(CheckpointError, match=r'with 64 \(its training configuration\)'):
        load_weights(UniFormer3d(TINY), save(tmp_path / 'w.pth', content))


def test_head_dim_changes_the_logits(tmp_path):
    """What a wrong value would do: same tensors, other results."""
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    logits = []
    for head_dim in (32, 32, 16):
        model = UniFormer2dClassifier(TINY | {'head_dim': head_dim}, num_classes=10)
        load_weights(model, path)
        logits.append(model.double().eval()(image))
    same, wrong = ((logits[0] - other).norm() / logits[0].norm() for other in logits[1:])
    assert same < 1e-13
    assert wrong > 1e-9
