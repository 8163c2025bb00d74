# SPDX-License-Identifier: Apache-2.0
"""Which layers are parts of formulas is asked once, and again after any change."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from uniformer_mm.models import fused_norm
from uniformer_mm.models.blocks import GlobalBlock, LocalBlock
from uniformer_mm.models.plan import plan


class Doubled(nn.Linear):
    """What an adapter might make of a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Counted(LocalBlock):
    """Counts how often it is asked."""

    asked = 0

    def linear_layers(self, x: torch.Tensor):
        self.asked += 1
        return super().linear_layers(x)


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were kernels for every dtype."""
    monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: True)


def random_block(kind: type) -> nn.Module:
    torch.manual_seed(0)
    block = kind(2, 16, 8, 2) if kind is GlobalBlock else kind(2, 16, 2)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.double()


def replace_layer(block: nn.Module) -> None:
    layer = block.mlp.fc1
    block.mlp.fc1 = Doubled(layer.in_features, layer.out_features).double()
    block.mlp.fc1.load_state_dict(layer.state_dict())


def change_class(block: nn.Module) -> None:
    block.attn.proj.__class__ = Doubled


def add_hook(block: nn.Module) -> None:
    block.norm2.register_forward_hook(lambda module, inputs, output: 3 * output)


def exchange_parameter(block: nn.Module) -> None:
    block.mlp.fc2.weight = nn.Parameter(-block.mlp.fc2.weight.detach())


def move_parameter(block: nn.Module) -> None:
    block.attn.qkv.weight.data = block.attn.qkv.weight.data.flip(0)


def change_in_place(block: nn.Module) -> None:
    with torch.no_grad():
        block.mlp.fc1.bias.add_(1)


def drop_statistics(block: nn.Module) -> None:
    block.norm1.running_mean = block.norm1.running_var = None


def change_epsilon(block: nn.Module) -> None:
    block.norm1.eps = 0.5


def exchange_statistics(block: nn.Module) -> None:
    block.norm2.running_var = 3 * block.norm2.running_var


def switch_mode(block: nn.Module) -> None:
    block.norm1.eval()


@pytest.mark.parametrize(
    ('kind', 'change'),
    [
        (GlobalBlock, replace_layer),
        (GlobalBlock, change_class),
        (GlobalBlock, add_hook),
        (GlobalBlock, exchange_parameter),
        (GlobalBlock, move_parameter),
        (GlobalBlock, change_in_place),
        (LocalBlock, drop_statistics),
        (LocalBlock, switch_mode),
        (LocalBlock, change_epsilon),
        (LocalBlock, exchange_statistics),
        (LocalBlock, exchange_parameter),
    ],
)
def test_a_change_between_passes_is_seen(
    kind: type, change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the plain form of a block that was changed before its first pass."""
    # In training statistics are those of the batch, with running ones beside them or without.
    training = change not in (drop_statistics, change_epsilon, exchange_statistics)
    block, other = (random_block(kind).train(training) for _ in range(2))
    x = torch.randn(2, 5, 7, 16).double()
    before = block(x)
    change(block)
    other.load_state_dict(block.state_dict(), strict=False)
    if change not in (exchange_parameter, move_parameter, change_in_place, exchange_statistics):
        change(other)
        other.load_state_dict(block.state_dict())
    after = block(x)
    monkeypatch.setattr(fused_norm, '_has_kernels', lambda *_: False)
    torch.testing.assert_close(after, other(x), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(after, before)


def test_blocks_are_asked_once() -> None:
    blocks = nn.ModuleList(Counted(2, 16, 2) for _ in range(2)).eval()
    x = torch.randn(2, 4, 4, 16)
    first = plan(blocks, x)
    assert plan(blocks, torch.randn(3, 8, 4, 16)) is first
    assert [block.asked for block in blocks] == [1, 1]
    assert len(first.layers) == 2 * 4 and len(first.convs) == 2 * 2
    # A map of one row, part of the blocks, another mode.
    plan(blocks, torch.randn(1, 1, 1, 16))
    assert plan(blocks[:1], x).layers == first.layers[:4]
    blocks.train()
    assert {kind for _, norm, kind in plan(blocks, x).layers if norm} == {'batch'}
    assert {kind for _, norm, kind in first.layers if norm} == {'running'}
    # Of no rows there are no statistics, as of one.
    assert {kind for _, norm, kind in plan(blocks, x[:0]).layers if norm} == set()
    assert [block.asked for block in blocks] == [5, 4]


def test_while_there_is_a_hook_nothing_is_remembered() -> None:
    blocks = nn.ModuleList([Counted(2, 16, 2)])
    x = torch.randn(2, 4, 4, 16)
    handle = blocks[0].conv1.register_forward_hook(lambda *_: None)
    counts = []
    for _ in range(2):
        counts.append(len(plan(blocks, x).layers))
    # A second one beside the first takes another layer out.
    blocks[0].conv2.register_forward_hook(lambda *_: None)
    counts.append(len(plan(blocks, x).layers))
    handle.remove()
    counts.append(len(plan(blocks, x).layers))
    assert counts == [3, 3, 2, 3]


def test_a_plan_does_not_keep_its_blocks() -> None:
    block = random_block(GlobalBlock)
    block(torch.randn(2, 5, 7, 16).double())
    copied = copy.deepcopy(block)
    gone = weakref.ref(block)
    del block
    gc.collect()
    assert gone() is None
    copied(torch.randn(2, 5, 7, 16).double())
