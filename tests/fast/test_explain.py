# SPDX-License-Identifier: Apache-2.0
"""What ``explain_speed`` says of a model, and that it changes nothing in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import uniformer_mm
from uniformer_mm.models import UniFormer2d

TINY = {'depths': (1, 1, 1, 1), 'dims': (8, 8, 8, 8), 'head_dim': 4}


@pytest.mark.parametrize('training', [True, False])
def test_rows_say_which_form_and_why(
    training: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = UniFormer2d(TINY, drop_path_rate=0.2).train(training)
    model.blocks2[0].mlp.register_forward_hook(lambda *_: None)
    model.blocks3[0].attn.qkv = nn.Sequential(model.blocks3[0].attn.qkv)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_numbers = torch.get_rng_state()
    rows = uniformer_mm.explain_speed(model, torch.randn(2, 3, 32, 32, generator=torch.Generator()))
    assert [(row.name, row.path) for row in rows] == [
        ('blocks1.0', 'cpu'),
        ('blocks2.0', 'plain'),
        ('blocks3.0', 'plain'),
        ('blocks4.0', 'cpu'),
    ]
    assert rows[1].reason == 'mlp has hooks'
    assert rows[2].reason == 'attn.qkv is a Sequential'
    printed = capsys.readouterr().out
    assert all(text in printed for text in ('blocks2.0', 'mlp has hooks', 'LocalBlock'))
    assert torch.equal(torch.get_rng_state(), random_numbers)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.training is training
    assert not any(module._forward_pre_hooks for module in model.modules())
    monkeypatch.setenv('UNIFORMER_FAST', '0')
    rows = uniformer_mm.explain_speed(model, torch.zeros(2, 3, 32, 32), show=False)
    assert {row.reason for row in rows} == {'UNIFORMER_FAST=0'}
    assert not capsys.readouterr().out


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match='Linear has no UniFormer block'):
        uniformer_mm.explain_speed(nn.Linear(2, 2), torch.zeros(1, 2))
