# SPDX-License-Identifier: Apache-2.0
"""Every tensor of the file and of the model is accounted for, or loading raises."""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MMLogger
from torch.optim import AdamW

from uniformer_mm import UniFormer2d, UniFormer3d, create_model
from uniformer_mm.models import UniFormer2dClassifier, UniFormer3dClassifier
from uniformer_mm.weights import CheckpointError, load_weights

from .helpers import TINY, classifier_state, equal, filled, save, shapes_of


def wrapped(state: dict, container: str | None, prefix: str) -> dict:
    """The state dict under a prefix and a top-level key."""
    state = {prefix + key: value for key, value in state.items()}
    return state if container is None else {container: state, 'epoch': 3}


@pytest.mark.parametrize('container', ['state_dict', 'model', 'model_state', None])
@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.'])
def test_containers_and_prefixes(tmp_path, container, prefix):
    state = classifier_state()
    path = save(tmp_path / 'w.pth', wrapped(state, container, prefix))
    model = UniFormer2d(TINY, out_indices=(3,), out_norm='bn')
    report = load_weights(model, path)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert len(report.loaded) == len(model.state_dict()) == report.total
    assert report.unused == {'classifier': tuple(prefix + f'head.{n}' for n in ('weight', 'bias'))}


def test_safetensors(tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    state = classifier_state()
    save_file(state, tmp_path / 'w.safetensors')
    model = UniFormer2dClassifier(TINY, num_classes=10)
    load_weights(model, tmp_path / 'w.safetensors')
    assert equal(model.state_dict(), state)


def test_raw_weights_are_never_replaced_by_averaged_ones(tmp_path):
    raw = classifier_state()
    averaged = {k: v + 1 if v.is_floating_point() else v for k, v in raw.items()}
    path = save(tmp_path / 'w.pth', {'model_ema': averaged, 'model': raw})
    model = UniFormer2dClassifier(TINY, num_classes=10)
    load_weights(model, path)
    assert equal(model.state_dict(), raw)
    load_weights(model, path, ema=True)
    assert equal(model.state_dict(), averaged)
    only = save(tmp_path / 'ema.pth', {'model_ema': averaged})
    words = (
        r'only averaged weights \(model_ema\); pass ema=True to use them, as in '
        r'uniformer_mm\.weights\.load_weights\(model, file, ema=True\), .*'
        r'convert FILE --to official --ema'
    )
    with pytest.raises(CheckpointError, match=words):
        load_weights(model, only)
    with pytest.raises(CheckpointError, match=r"holds none of \('model_ema'"):
        load_weights(model, save(tmp_path / 'raw.pth', {'model': raw}), ema=True)


def test_official_training_file_with_optimizer_and_arguments(tmp_path):
    """The DeiT-style script saves its argparse.Namespace beside the tensors."""
    state = classifier_state()
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    content = {
        'model': OrderedDict(state),
        'optimizer': optimizer.state_dict(),
        'lr_scheduler': {'base_values': [1e-3], 't_initial': 300},
        'scaler': {'scale': 65536.0},
        'model_ema': OrderedDict(state),
        'epoch': 299,
        'args': argparse.Namespace(model='something_else', lr=5e-4, data_path='/data'),
    }
    model = UniFormer2dClassifier(TINY, num_classes=10)
    load_weights(model, save(tmp_path / 'w.pth', content))
    assert equal(model.state_dict(), state)


def test_slowfast_file(tmp_path):
    """The video fork saves model_state, and its configuration as text."""
    state = classifier_state(ndim=3)
    content = {
        'epoch': 109,
        'model_state': state,
        'optimizer_state': {'state': {}, 'param_groups': [{'lr': 1e-4}]},
        'cfg': 'UNIFORMER:\n  DROPOUT_RATE: 0\n  HEAD_DIM: 32\n',
        'scaler_state': {'scale': 1.0},
    }
    model = UniFormer3dClassifier(TINY, num_classes=10)
    report = load_weights(model, save(tmp_path / 'w.pyth', content))
    assert equal(model.state_dict(), state)
    assert report.head_dim_source == 'its training configuration'


def test_mmengine_training_file(tmp_path):
    """mmengine's runner saves log buffers and NumPy scalars beside the tensors."""
    state = classifier_state()
    buffer = HistoryBuffer()
    buffer.update(0.5)
    content = {
        'meta': {'epoch': 1, 'seed': np.int64(7), 'dataset_meta': {'classes': ('a', 'b')}},
        'state_dict': {f'backbone.{k}': v for k, v in state.items() if not k.startswith('head')},
        'message_hub': {
            'log_scalars': {'train/loss': buffer},
            'runtime_info': {'loss': np.float64(0.5), 'history': np.arange(3)},
            'resumed_keys': {},
        },
    }
    model = UniFormer2d(TINY, out_indices=(3,), out_norm='bn')
    load_weights(model, save(tmp_path / 'epoch_1.pth', content))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_dense_model_names_what_it_leaves_and_keeps(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    model = UniFormer2d(TINY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_weights(model, path)
    norms = [f'norm{s}.{n}' for s in range(1, 5) for n in ('weight', 'bias')]
    assert report.newly_initialised == {'output norms of a dense model': tuple(norms)}
    assert set(report.unused) == {'classifier', 'final BatchNorm'}
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in norms)
    assert report.total == len(before)


def test_dense_file_into_a_pose_backbone(tmp_path):
    state = filled(shapes_of(UniFormer2d(TINY)))
    content = {f'backbone.{k}': v for k, v in state.items()}
    content['keypoint_head.final_layer.weight'] = torch.zeros(17, 4, 1, 1)
    model = UniFormer2d(TINY, out_indices=(3,))
    report = load_weights(model, save(tmp_path / 'w.pth', {'state_dict': content}))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert len(report.unused['output norms']) == 6
    assert report.unused['keypoint_head of the whole model'] == (
        'keypoint_head.final_layer.weight',
    )


def test_classifier_of_other_classes(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state(classes=10)})
    model = UniFormer2dClassifier(TINY, num_classes=7)
    report = load_weights(model, path)
    assert report.unused == {
        'classifier of 10 classes, the model has 7': ('head.weight', 'head.bias')
    }
    assert report.newly_initialised == {'classifier of 7 classes': ('head.weight', 'head.bias')}


def test_model_with_fewer_stages(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    report = load_weights(UniFormer2d(TINY, out_indices=(0, 1)), path)
    keys = report.unused['stages that the model does not build']
    assert {key.split('.')[0] for key in keys} == {
        'patch_embed3', 'blocks3', 'patch_embed4', 'blocks4',
    }  # fmt: skip


def test_divided_attention_starts_from_joint_weights(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    report = load_weights(UniFormer3d(TINY, attention='divided'), path)
    assert set(report.newly_initialised) == {'temporal attention'}
    assert len(report.newly_initialised['temporal attention']) == 3 * 6  # blocks, tensors in each


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.update({'blocks3.0.extra.weight': torch.zeros(3)}),
         r'1 tensor does not fit: blocks3\.0\.extra\.weight \(no place in the model\)'),
        (lambda s: s.pop('blocks3.1.attn.qkv.bias'),
         r'blocks3\.1\.attn\.qkv\.bias \(not in the file\)'),
        (lambda s: s.update({'blocks1.0.attn.weight': torch.zeros(32, 1, 7, 7)}),
         r'1 tensor does not fit: blocks1\.0\.attn\.weight \(32, 1, 7, 7\), the model has '
         r'\(32, 1, 5, 5\)\. The'),
        (lambda s: s.pop('blocks1.0.norm1.num_batches_tracked'),
         r'blocks1\.0\.norm1\.num_batches_tracked \(not in the file\)'),
        (lambda s: s['blocks3.0.norm1.weight'].fill_(float('nan')),
         r"tensor 'blocks3\.0\.norm1\.weight' has NaN"),
        (lambda s: s.update({'note': 'text'}),
         r"entry 'note' of the state dict is a str"),
        (lambda s: s.update({1: torch.zeros(1)}),
         r'key 1 of the state dict is of type int, not a name'),
    ],
)  # fmt: skip
def test_anything_else_raises_and_changes_nothing(tmp_path, change, message):
    state = classifier_state()
    change(state)
    path = save(tmp_path / 'w.pth', {'model': state})
    model = UniFormer2dClassifier(TINY, num_classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, path)
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize(
    ('options', 'key'),
    [({}, 'norm2.bias'), ({'attention': 'divided'}, 'blocks3.1.t_attn.qkv.weight')],
)
def test_expected_groups_are_there_or_not_but_not_in_part(tmp_path, options, key):
    kind = UniFormer3d if options else UniFormer2d
    state = filled(shapes_of(kind(TINY, **options)))
    del state[key]
    with pytest.raises(CheckpointError, match=rf'{key} \(not in the file\)'):
        load_weights(kind(TINY, **options), save(tmp_path / 'w.pth', state))


def test_many_misfits_are_counted_not_listed(tmp_path):
    state = classifier_state() | {f'blocks3.0.x{i}': torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError, match=r'9 tensors do not fit.* and 5 more') as caught:
        load_weights(UniFormer2d(TINY), save(tmp_path / 'w.pth', {'model': state}))
    assert str(caught.value).count('no place') == 4


def test_wrong_prefix_is_found_and_named(tmp_path):
    state = {f'encoder.{k}': v for k, v in classifier_state().items()}
    path = save(tmp_path / 'w.pth', {'model': state})
    model = UniFormer2d(TINY)
    with pytest.raises(CheckpointError, match=r"one under 'encoder\.'.*name it with prefix='"):
        load_weights(model, path)
    load_weights(model, path, prefix='encoder')
    assert torch.equal(model.blocks3[0].attn.qkv.weight, state['encoder.blocks3.0.attn.qkv.weight'])


def test_another_network_is_named(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': {'layer1.0.conv1.weight': torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r'no UniFormer.*layer1\.0\.conv1\.weight'):
        load_weights(UniFormer2d(TINY), path)
    path = save(tmp_path / 'o.pth', {'net': {'patch_embed1.proj.weight': torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"top-level keys are \['net'\]"):
        load_weights(UniFormer2d(TINY), path)


def test_half_precision_files_fill_float_models(tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in classifier_state().items()}
    model = UniFormer2dClassifier(TINY, num_classes=10)
    load_weights(model, save(tmp_path / 'w.pth', state))
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, state['head.weight'].float())


def test_files_without_batchnorm_counters(tmp_path):
    state = {k: v for k, v in classifier_state().items() if 'num_batches' not in k}
    report = load_weights(
        UniFormer2dClassifier(TINY, num_classes=10), save(tmp_path / 'w.pth', state)
    )
    assert set(report.newly_initialised) == {'BatchNorm counters'}


def test_one_summary_line(tmp_path, caplog):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    logger = MMLogger.get_instance('test_one_summary_line')
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.addHandler(caplog.handler)
        report = load_weights(UniFormer3d(TINY), path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [str(report)]
    assert '107 / 107 tensors loaded (19 inflated)' in lines[0]
    for part in ('arch custom', 'head_dim 32 (from the arch, not from the file)', str(path)):
        assert part in lines[0]
    import hashlib

    assert f'sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}' in lines[0]


def test_create_model_loads(tmp_path):
    state = classifier_state('tiny', classes=1000)
    model = create_model('uniformer_tiny', checkpoint=save(tmp_path / 'w.pth', {'model': state}))
    assert equal(model.state_dict(), state)


def test_model_without_exactly_one_uniformer(tmp_path):
    path = save(tmp_path / 'w.pth', classifier_state())
    with pytest.raises(ValueError, match='Linear contains 0 UniFormers'):
        load_weights(torch.nn.Linear(1, 1), path)
    holder = torch.nn.Sequential(UniFormer2d(TINY, out_indices=(3,), out_norm='bn'))
    load_weights(holder, path)
    assert torch.equal(holder[0].norm.weight, classifier_state()['norm.weight'])
