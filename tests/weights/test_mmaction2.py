# SPDX-License-Identifier: Apache-2.0
"""Our converted files in the installed mmaction2's own UniFormer give our logits.

Its blocks have LayerNorms of eps 1e-5, the official ones 1e-6; that is the whole difference.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from uniformer_mm.labels import permutation
from uniformer_mm.layers import PatchEmbed
from uniformer_mm.models import UniFormer3dClassifier
from uniformer_mm.weights import convert_file, load_weights

from .helpers import TINY, classifier_state, save


@pytest.fixture(scope='module')
def registry():
    """mmaction2's model registry; skips where it cannot be imported."""
    models = pytest.importorskip('mmaction.models', reason='mmaction2 cannot be imported')
    assert models
    from mmaction.registry import MODELS

    return MODELS


def their_recognizer(registry, classes: int) -> nn.Module:
    """mmaction2's Recognizer3D with its own backbone and head, in the sizes of TINY."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        return registry.build(
            {
                'type': 'Recognizer3D',
                'backbone': {
                    'type': 'mmaction.UniFormer',
                    'depth': list(TINY['depths']),
                    'embed_dim': list(TINY['dims']),
                    'head_dim': TINY['head_dim'],
                    'drop_path_rate': 0.0,
                    'pretrained2d': False,
                },
                'cls_head': {
                    'type': 'I3DHead',
                    'num_classes': classes,
                    'in_channels': TINY['dims'][-1],
                    'dropout_ratio': 0.0,
                },
            }
        ).eval()


def their_logits(model: nn.Module, clip_BCTHW: torch.Tensor) -> torch.Tensor:
    return model.cls_head(model.backbone(clip_BCTHW))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / ours.norm())


def test_logits_of_their_own_class(registry, tmp_path, record_property):
    state = classifier_state(ndim=3, classes=400)
    official = save(tmp_path / 'w.pth', {'model_state': state})
    converted, _ = convert_file(
        official, to='mmaction2', class_order='kinetics400_official',
        permute='kinetics400_alphabetical',
    )  # fmt: skip
    theirs = their_recognizer(registry, 400)
    # Strictly: mmengine's own loading would only log what does not fit.
    load_checkpoint(theirs, str(converted), strict=True)
    ours = UniFormer3dClassifier(TINY, num_classes=400)
    load_weights(ours, official)
    ours, theirs = ours.double().eval(), theirs.double()
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(2, 3, 8, 64, 64, generator=generator, dtype=torch.float64)
    rows = permutation('kinetics400_official', 'kinetics400_alphabetical')

    with torch.no_grad():
        expected = ours(clip)[:, rows]
        as_installed = difference(expected, their_logits(theirs, clip))
        for block in [*theirs.backbone.blocks3, *theirs.backbone.blocks4]:
            for norm in (block.norm1, block.norm2):
                assert norm.eps == 1e-5
                norm.eps = 1e-6
        same_eps = difference(expected, their_logits(theirs, clip))
        unpermuted = difference(ours(clip), their_logits(theirs, clip))
    record_property('relative_difference_of_eps', as_installed)
    assert 0 < as_installed < 1e-4, as_installed
    assert same_eps < 1e-12, same_eps
    assert unpermuted > 0.1, unpermuted
    assert all(m.norm.eps == 1e-5 for m in ours.modules() if isinstance(m, PatchEmbed))


def test_their_files_come_back(registry, tmp_path):
    theirs = their_recognizer(registry, 10)
    path = save(tmp_path / 'epoch_1.pth', {'state_dict': theirs.state_dict(), 'meta': {}})
    ours = UniFormer3dClassifier(TINY, num_classes=10)
    load_weights(ours, path)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(1, 3, 8, 64, 64, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        logits = ours.double().eval()(clip)
        assert difference(logits, their_logits(theirs.double(), clip)) < 1e-4
