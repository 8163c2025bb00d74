# SPDX-License-Identifier: Apache-2.0
"""The folded network computes what the network computes, with fewer operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import uniformer_mm
from tests.models.test_official import TINY, VARIANTS, both, images
from uniformer_mm.models import UniFormer2d


@pytest.mark.parametrize('variant', VARIANTS)
def test_folded_networks_equal_the_reference(variant: str) -> None:
    rank, arch, options = VARIANTS[variant]
    ours, theirs = both(rank, arch | {'layer_scale': 0.3}, options)
    x = images(rank)
    with torch.no_grad():
        got = uniformer_mm.fold_for_inference(ours.eval())(x)
        for y, z in zip(got, theirs.eval()(x), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)


def test_no_batch_norm_and_no_scale_is_left_and_the_network_stays_as_it_was() -> None:
    model = UniFormer2d(TINY, layer_scale=0.5).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = uniformer_mm.fold_for_inference(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any('gamma' in name for name in folded.state_dict())
    assert not folded.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_block_that_somebody_changed_stays_as_it_is() -> None:
    model = UniFormer2d(TINY).eval()
    model.blocks1[0].conv1.register_forward_hook(lambda *_: None)
    folded = uniformer_mm.fold_for_inference(model)
    assert isinstance(folded.blocks1[0].norm1, nn.BatchNorm2d)
    assert not hasattr(folded.blocks2[0], 'norm1')


def test_training_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r'in training mode.*model\.eval\(\)'):
        uniformer_mm.fold_for_inference(UniFormer2d(TINY))
