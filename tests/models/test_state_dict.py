# SPDX-License-Identifier: Apache-2.0
"""mmengine cannot leave a guarded backbone random, and trained files state their head_dim."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint
from torch import nn

from tests.weights.helpers import TINY, classifier_state, equal, save
from uniformer_mm import UniFormer2d, UniFormer3d
from uniformer_mm.weights import CheckpointError, load_weights


class Detector(nn.Module):
    """A model whose backbone is one of its parts."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Linear(2, 2)


@pytest.fixture
def detector() -> Detector:
    return Detector(UniFormer2d(TINY))


def test_container_that_mmengine_does_not_unwrap(detector, tmp_path):
    """load_from an official file: the top key model stays, everything would be random."""
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    with pytest.raises(CheckpointError, match=r"no UniFormer tensor.*type='UniFormerPretrained'"):
        load_checkpoint(detector, str(path))


def test_keys_without_the_prefix(detector, tmp_path):
    path = save(tmp_path / 'w.pth', classifier_state())
    with pytest.raises(CheckpointError, match=r"no UniFormer tensor under 'backbone\.'"):
        load_checkpoint(detector, str(path))


def test_mmengines_own_initialiser(tmp_path):
    path = save(tmp_path / 'w.pth', {'model': classifier_state()})
    init = {'type': 'Pretrained', 'checkpoint': str(path)}
    backbone = UniFormer2d(TINY, init_cfg=init)
    with pytest.raises(CheckpointError, match='would stay random'):
        backbone.init_weights()


def test_images_into_clips(tmp_path):
    model = Detector(UniFormer3d(TINY))
    state = {f'backbone.{k}': v for k, v in classifier_state().items()}
    with pytest.raises(
        CheckpointError, match=r'has shape \(64, 3, 4, 4\)|has shape \(32, 3, 4, 4\)'
    ):
        load_checkpoint(model, str(save(tmp_path / 'w.pth', {'state_dict': state})))


def test_checkpoints_of_training_load_again(detector, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint({'state_dict': get_state_dict(detector), 'meta': {}}, str(path))
    other = copy.deepcopy(detector)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    load_checkpoint(other, str(path), strict=True)
    assert equal(other.state_dict(), detector.state_dict())
    average = ExponentialMovingAverage(detector)
    average.load_state_dict(average.state_dict())


def test_trained_files_state_their_head_dim(detector, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint({'state_dict': get_state_dict(detector), 'meta': {}}, str(path))
    report = load_weights(UniFormer2d(TINY), path)
    assert report.head_dim_source == 'recorded in the file by uniformer_mm'
    other = TINY | {'head_dim': 16}
    with pytest.raises(CheckpointError, match=r'trained with 32 .*recorded in the file.* has 16'):
        load_weights(UniFormer2d(other), path)
    wrong = Detector(UniFormer2d(other))
    with pytest.raises(CheckpointError, match='trained with 32, the model has 16'):
        load_checkpoint(wrong, str(path))


def test_partial_state_is_still_possible(detector):
    state = {f'backbone.{k}': v + 1 for k, v in detector.backbone.state_dict().items() if 's3' in k}
    detector.load_state_dict(state, strict=False)
    key = 'blocks3.0.attn.qkv.weight'
    assert torch.equal(detector.backbone.state_dict()[key], state[f'backbone.{key}'])
