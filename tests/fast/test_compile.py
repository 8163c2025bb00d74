# SPDX-License-Identifier: Apache-2.0
"""``uniformer_mm.compile`` puts the depthwise operator where it is the faster one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from uniformer_mm.fast import compile as module
from uniformer_mm.fast.compile import depthwise_forward, is_depthwise

from .blocks import build


def test_only_depthwise_layers_that_keep_the_size() -> None:
    layer = nn.Conv3d(8, 8, 3, padding=1, groups=8)
    assert is_depthwise(layer)
    assert not is_depthwise(nn.Conv3d(8, 8, 3, padding=1))
    assert not is_depthwise(nn.Conv3d(8, 8, 3, padding=0, groups=8))
    assert not is_depthwise(nn.Conv3d(8, 8, 3, padding=1, groups=8, stride=2))
    assert not is_depthwise(nn.Conv3d(8, 8, 3, padding=1, groups=8, padding_mode='circular'))


def test_clips_train_through_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = build('local 3-D')
    expected = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    compiled, _ = build('local 3-D')
    keys = list(compiled.state_dict())
    torch._dynamo.reset()
    assert module.compile(compiled, backend='eager', fullgraph=True) is compiled
    assert list(compiled.state_dict()) == keys
    called = []
    operator = module.depthwise_conv
    monkeypatch.setattr(module, 'depthwise_conv', lambda *a: called.append(1) or operator(*a))
    found = torch.autograd.grad(compiled(x).square().sum(), list(compiled.parameters()))
    torch.testing.assert_close(found, expected)
    assert len(called) == 2
    with torch.no_grad():
        compiled(x)
    assert len(called) == 2


def test_images_stay_pytorch_s_own_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'depthwise_conv', lambda *_: pytest.fail('called'))
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(depthwise_forward(layer, x), layer(x))


@pytest.mark.parametrize('how', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_layers_of_their_own(how) -> None:
    block, x = build('local 3-D')
    module.compile(block, backend='eager')
    other = how(block)
    assert other.attn.forward.args[0] is other.attn
    torch.testing.assert_close(other.attn(x), block.attn(x))
