# SPDX-License-Identifier: Apache-2.0
"""Options of the wrong kind, and the official code's names, are refused in one sentence."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

import uniformer_mm
from uniformer_mm.models import (
    UniFormer2d,
    UniFormer2dClassifier,
    UniFormer3d,
    UniFormer3dClassifier,
)
from uniformer_mm.models.arch import Arch

TINY = {'depths': (1, 1, 4, 1), 'dims': (8, 16, 32, 48), 'head_dim': 16}
LIGHT = TINY | {'keep_ratios': ((1, 0.5, 0.5, 0.5), (0.5,))}
FRONTS = (UniFormer2d, UniFormer3d)
CLASSIFIERS = (UniFormer2dClassifier, UniFormer3dClassifier)


def message_of(build, *args, **options) -> str:
    """What a refusal says; it is one line and names no internals."""
    with pytest.raises(ValueError) as refusal, torch.device('meta'):
        build(*args, **options)
    message = str(refusal.value)
    assert '\n' not in message
    assert message.endswith(('.', '?'))
    return message


@pytest.mark.parametrize(
    ('options', 'start'),
    [
        ({'norm_eval': 'False'}, "norm_eval='False' must be True or False"),
        ({'norm_eval': 1}, 'norm_eval=1 must be True or False'),
        ({'as_tuple': 'no'}, "as_tuple='no' must be True or False"),
        ({'head_dim': True}, 'arch: head_dim=True must be a positive integer'),
        ({'head_dim': '32'}, "arch: head_dim='32' must be a positive integer"),
        ({'with_cp': (True,) * 4}, 'with_cp=(True, True, True, True) must be True, False or 4'),
        ({'with_cp': 1}, 'with_cp=1 must be True, False or 4'),
        ({'frozen_stages': True}, 'frozen_stages=True must be the number of leading stages'),
        ({'out_indices': True}, 'out_indices=True must be different stages'),
        ({'out_indices': (0, True)}, 'out_indices=(0, True) must be different stages'),
        ({'out_indices': 2.0}, 'out_indices=2.0 must be different stages'),
        ({'out_indices': '3'}, "out_indices='3' must be different stages"),
        ({'drop_path_rate': '0.1'}, "drop_path_rate='0.1' must be a number of at least 0"),
        ({'drop_path_rate': None}, 'drop_path_rate=None must be a number'),
        ({'drop_path_rate': [0.1]}, 'drop_path_rate=[0.1] must be a number'),
        ({'drop_path_rate': float('nan')}, 'drop_path_rate=nan must be a number'),
        ({'drop_path_rate': False}, 'drop_path_rate=False must be a number'),
        ({'layer_scale': float('inf')}, 'layer_scale=inf must be a positive number'),
        ({'layer_scale': '1e-6'}, "layer_scale='1e-6' must be a positive number"),
        ({'patch_kernel_t': 3.0}, 'patch_kernel_t=3.0 must be 1 or 3'),
        ({'patch_kernel_t': True}, 'patch_kernel_t=True must be 1 or 3'),
        ({'arch': TINY | {'depths': 3}}, 'arch: depths=3 must hold 4 positive integers'),
        ({'arch': TINY | {'dims': None}}, 'arch: dims=None must hold 4 positive integers'),
        ({'arch': TINY | {'token_labels': 'no'}}, "token_labels='no' must be True or False"),
        ({'arch': TINY | {'mlp_ratio': -1}}, 'arch: mlp_ratio=-1 must be a positive number'),
        ({'arch': TINY | {'mlp_ratio': '4'}}, "arch: mlp_ratio='4' must be a positive number"),
        ({'arch': TINY | {'mlp_ratio': None}}, 'arch: mlp_ratio=None must be a positive number'),
        ({'arch': TINY | {'mlp_ratio': 0.1}}, 'arch: mlp_ratio=0.1 leaves no hidden channel'),
        ({'arch': TINY | {'mlp_ratio': [4, 4, 3, 3]}}, 'arch: mlp_ratio=[4, 4, 3, 3] must be'),
        ({'arch': TINY | {'layer_scale': '1'}}, "arch: layer_scale='1' must be a positive"),
        ({'arch': TINY | {'layer_scale': True}}, 'arch: layer_scale=True must be a positive'),
        ({'arch': LIGHT | {'keep_ratios': ((True,) * 4, (1,))}}, 'arch: keep_ratios=((True,'),
        ({'arch': LIGHT | {'downsample': 'conv'}}, "arch: downsample='conv' does not go with"),
    ],
)
@pytest.mark.parametrize('front', FRONTS)
def test_options_of_another_kind_are_refused(front: type, options: dict, start: str) -> None:
    arguments = {'arch': TINY} | options
    assert start in message_of(front, **arguments)


@pytest.mark.parametrize('name', ['uniformer_tiny', 'uniformer3d_tiny'])
def test_factory_and_classifiers_refuse_other_kinds(name: str) -> None:
    refuse = lambda **options: message_of(uniformer_mm.create_model, name, **options)  # noqa: E731
    assert refuse(features_only='no').startswith("features_only='no' must be True or False")
    assert refuse(norm_eval='no').startswith("norm_eval='no' must be True or False")
    for front in CLASSIFIERS:
        message = message_of(front, TINY, num_classes=2, mix_token='no')
        assert message.startswith("mix_token='no' must be True or False")
        message = message_of(front, TINY, num_classes=2, out_indices=(0,))
        assert message.startswith('out_indices=(0,) has no use in a classifier')


def test_numbers_of_other_libraries_are_numbers() -> None:
    rate = np.float32(0.25)
    assert UniFormer2d(TINY, drop_path_rate=rate, layer_scale=rate).arch.layer_scale == 0.25
    assert UniFormer2d(TINY, out_indices=range(1, 3)).out_indices == (1, 2)


def test_official_notation_of_one_ratio_is_read() -> None:
    for given in ([3, 3, 3, 3], (3,) * 4):
        arch = Arch(**TINY, mlp_ratio=given)
        assert arch == Arch(**TINY, mlp_ratio=3)
        assert UniFormer2d(arch).blocks4[0].mlp.fc1.out_features == 3 * 48


def test_whole_numbers_scale_residuals_in_an_arch_too() -> None:
    arch = TINY | {'layer_scale': 1}
    assert torch.equal(UniFormer2d(arch).blocks3[0].gamma_1, torch.ones(32))
    assert isinstance(Arch(**arch).layer_scale, float)


@pytest.mark.parametrize('front', [*FRONTS, *CLASSIFIERS])
@pytest.mark.parametrize(
    ('option', 'value', 'meant'),
    [
        ('windows', True, "attention='window'"),
        ('use_checkpoint', True, 'with_cp=True'),
        ('layers', [3, 4, 8, 3], 'arch=dict(depths=...)'),
        ('pretrained', 'a.pth', "init_cfg=dict(type='uniformer_mm.UniFormerPretrained'"),
        ('checkpoint', 'a.pth', "init_cfg=dict(type='uniformer_mm.UniFormerPretrained'"),
        ('atention', 'window', "did you mean 'attention'?"),
        ('out_normm', 'ln', "did you mean 'out_norm'?"),
        ('nonsense', 1, 'use some of ['),
    ],
)
def test_configs_explain_unknown_options(
    front: type, option: str, value: object, meant: str
) -> None:
    config = dict(type=f'uniformer_mm.{front.__name__}', arch='tiny', **{option: value})
    if front in CLASSIFIERS:
        config['num_classes'] = 2
    message = message_of(MODELS.build, config)
    assert message.startswith(f'option {option!r} is ')
    assert meant in message


def test_factory_and_config_say_the_same() -> None:
    for option in ('windows', 'pretrained'):
        by_name = message_of(uniformer_mm.create_model, 'uniformer_tiny', **{option: True})
        assert by_name == message_of(UniFormer2d, 'tiny', **{option: True})
    assert 'checkpoint=... of create_model' in by_name


def test_a_classifier_knows_its_own_options() -> None:
    assert "did you mean 'mix_token'?" in message_of(
        UniFormer2dClassifier, TINY, num_classes=2, mix_tokens=False
    )
    assert "'num_classes'" in message_of(UniFormer2dClassifier, TINY, num_classes=2, zzz=1)
    assert "'num_classes'" not in message_of(UniFormer2d, TINY, zzz=1)


def test_subclasses_may_have_options_of_their_own() -> None:
    class Wider(UniFormer2d):
        def __init__(self, *args, width: int = 1, **options) -> None:
            super().__init__(*args, **options)
            self.width = width

    model = copy.deepcopy(Wider(TINY, width=2, out_indices=(3,)))
    assert (model.width, model.out_indices) == (2, (3,))
    assert "did you mean 'width'?" in message_of(Wider, TINY, widht=2)
