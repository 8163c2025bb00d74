# SPDX-License-Identifier: Apache-2.0
"""Each block's Functions equal its own equations, on PyTorch's form of the operations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from uniformer_mm.layers import is_batch_norm
from uniformer_mm.models.checkpointing import _frozen_statistics, checkpointed
from uniformer_mm.ops.torch import mlp as plain_mlp

from .blocks import KINDS, build, fused, plain, step


def assert_equal(found: dict, expected: dict, **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor is None:
            assert found[name] is None, name
            continue
        torch.testing.assert_close(
            found[name],
            tensor,
            msg=lambda text, name=name: f'{name}: {text}',
            **tolerance or {'rtol': 1e-9, 'atol': 1e-10},
        )


def both(kind: str, change=lambda block: None, **options: float) -> tuple[dict, dict]:
    block, x = build(kind, **options)
    change(block)
    other = copy.deepcopy(block)
    return step(fused, block, x), step(plain, other, x)


@pytest.mark.parametrize('recomputes', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_training_equals_the_plain_form(
    kind: str, recomputes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropped samples and residual scales; the hidden map kept, and computed again."""
    monkeypatch.setattr(plain_mlp, 'KEEPS_HIDDEN', not recomputes)
    assert_equal(*both(kind, drop_path=0.5, layer_scale=0.3))
    assert_equal(*both(kind))


@pytest.mark.parametrize('kind', KINDS)
def test_evaluation_equals_the_plain_form(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for recomputes in (False, True):
        monkeypatch.setattr(plain_mlp, 'KEEPS_HIDDEN', not recomputes)
        assert_equal(*both(kind, nn.Module.eval, drop_path=0.5, layer_scale=0.3))
        block, x = build(kind)
        with torch.no_grad():
            torch.testing.assert_close(fused(block.eval(), x), plain(block, x))


@pytest.mark.parametrize('momentum', [None, 0.3])
def test_running_statistics_are_updated_as_pytorch_does(momentum: float | None) -> None:
    def change(block: nn.Module) -> None:
        for norm in filter(is_batch_norm, block.modules()):
            norm.momentum = momentum

    found, expected = both('local 2-D', change)
    assert_equal(found, expected)
    assert found['norm1.num_batches_tracked'] == 1

    def freeze(block: nn.Module) -> None:
        block.norm1.track_running_stats = False
        block.norm2.num_batches_tracked = None

    found, expected = both('local 2-D', freeze)
    assert_equal(found, expected)


@pytest.mark.parametrize('kind', ['local 2-D', 'window 2-D', 'divided 3-D'])
def test_frozen_parts_get_no_gradient(kind: str) -> None:
    def change(block: nn.Module) -> None:
        block.pos_embed.requires_grad_(False)
        block.norm2.requires_grad_(False)
        block.mlp.fc2.weight.requires_grad_(False)

    found, expected = both(kind, change)
    assert_equal(found, expected)
    assert found['gradient of mlp.fc2.weight'] is None


@pytest.mark.parametrize('kind', ['local 2-D', 'global 2-D'])
def test_input_without_gradient_and_no_gradient_at_all(kind: str) -> None:
    block, x = build(kind)
    y = fused(block, x)
    y.sum().backward()
    assert block.pos_embed.weight.grad is not None
    assert x.grad is None
    assert not fused(block.requires_grad_(False), x).requires_grad


@pytest.mark.parametrize('kind', ['local 2-D', 'global 2-D', 'divided 3-D'])
def test_second_derivative_is_refused(kind: str) -> None:
    block, x = build(kind)
    x.requires_grad_()
    with pytest.raises(RuntimeError, match=r'no second derivative; set UNIFORMER_FAST=0'):
        torch.autograd.grad(fused(block, x).sum(), x, create_graph=True)


def test_one_value_per_channel_is_refused_as_pytorch_does() -> None:
    block, x = build('local 2-D')
    with pytest.raises(ValueError, match='Expected more than 1 value per channel when training'):
        fused(block, x[:1, :, :1, :1])


@pytest.mark.parametrize('kind', ['local 2-D', 'window 2-D', 'divided 3-D'])
def test_checkpointing_recomputes_the_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = build(kind, drop_path=0.5)
    other = copy.deepcopy(block)
    expected = step(fused, other, x)
    monkeypatch.setattr(type(block), 'forward', fused)
    found = step(lambda block, x: checkpointed(block, x), block, x)
    assert_equal(found, expected)
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    with _frozen_statistics(block):
        fused(block, x)
    assert_equal(dict(block.named_buffers()), before)


@pytest.mark.parametrize('stream', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', ['local 2-D', 'window 2-D', 'divided 3-D'])
def test_autocast_is_as_exact_as_the_plain_form(
    kind: str, training: bool, stream: torch.dtype
) -> None:
    """Against float64: the stream keeps its dtype, matrices are in bfloat16."""
    block, x = build(kind, layer_scale=0.3)
    x = x.to(torch.bfloat16)
    block.train(training)
    exact = step(plain, copy.deepcopy(block), x.double())
    errors = []
    for run in (fused, plain):
        other = copy.deepcopy(block).float()
        with torch.autocast('cpu', torch.bfloat16):
            found = step(run, other, x.to(stream))
        assert found['result'].dtype is stream
        assert all(p.grad.dtype is torch.float32 for p in other.parameters())
        names = [name for name in exact if exact[name].is_floating_point()]
        vectors = [
            torch.cat([values[name].double().flatten() for name in names])
            for values in (found, exact)
        ]
        errors.append(float((vectors[0] - vectors[1]).norm() / vectors[1].norm()))
    assert 0 < errors[0] <= 1.5 * errors[1], errors
