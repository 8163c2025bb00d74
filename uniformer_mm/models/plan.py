# SPDX-License-Identifier: Apache-2.0
"""Which layers of some blocks are parts of formulas, remembered for as long as that holds.

Asking every layer costs the host as much as dozens of launches. Whether anything has changed since
the answer is asked in a few passes over flat lists: layers replaced (LoRA, quantisation), another
class, a hook, a ``forward`` of their own, a parameter or buffer exchanged, training switched on or
off, another epsilon. What the parameters hold, and where, is not remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import attrgetter, contains
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops.rows import Product
from .fused_norm import RUNNING, running_norm

# A linear layer, the norm folded into it and what that is, or None and None.
LinearEntry = tuple[nn.Module, nn.Module | None, str | None]

_TRAINING, _EPS = attrgetter('training'), attrgetter('eps')


def hooks_of(module: nn.Module) -> tuple[dict, dict, dict, dict]:
    """What somebody who watches a module has put into it.

    Written out, for torch.compile cannot trace an ``attrgetter``.
    """
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )


def has_rows(x: Tensor) -> bool:
    """Whether a map has rows enough to take statistics of."""
    return x.numel() > x.shape[-1]


class Block(Protocol):
    """What a block tells of its layers."""

    def linear_layers(self, x: Tensor) -> Iterable[LinearEntry]:
        """Linear layers that formulas may use on ``x``, the norm folded into each, and its kind."""

    def depthwise_layers(self) -> Iterable[nn.Module]:
        """Depthwise convolutions that formulas may use."""


class Plan(NamedTuple):
    """Layers of some blocks that formulas use.

    Attributes:
        layers: Linear ones.
        parameters: Weight and bias of each, then those of its norm.
        products: What is made of each; its weight as the layer has it.
        convs: Depthwise convolutions.
        conv_parameters: Weight and bias of each.
    """

    layers: list[LinearEntry]
    parameters: list[tuple[Tensor, ...]]
    products: list[Product]
    convs: list[nn.Module]
    conv_parameters: list[tuple[Tensor, Tensor]]


class Watched:
    """What a plan rests on. The blocks themselves are not held: they own their plan.

    Args:
        blocks: Modules; what lies below them is watched.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        below = [m for block in blocks for m in block.modules() if m is not block]
        self.blocks = [ref(block) for block in blocks]
        self.modules = below
        self.attributes = [vars(m) for m in below]
        self.children = [m._modules for m in (*blocks, *below) if m._modules]
        self.tensors = [held for m in below for held in (m._parameters, m._buffers) if held]
        self.norms = [m for m in below if isinstance(m, _BatchNorm)]
        self.hooks = [hooks for m in below for hooks in hooks_of(m)]

    def is_of(self, blocks: Sequence[nn.Module]) -> bool:
        """Whether it was made for these blocks."""
        return [block() for block in self.blocks] == list(blocks)

    def children_now(self) -> list[nn.Module | None]:
        """All layers that are in their place at present."""
        return [child for children in self.children for child in children.values()]

    def state(self) -> tuple | None:
        """Equal to an earlier one if nothing has changed; None while somebody watches a layer."""
        if any(self.hooks) or any(map(contains, self.attributes, repeat('forward'))):
            return None
        return (
            self.children_now(),
            list(map(type, self.modules)),
            list(map(_TRAINING, self.modules)),
            list(map(_EPS, self.norms)),
            [id(tensor) for held in self.tensors for tensor in held.values()],
        )


# By the first block, then by how many blocks and whether the map has rows.
_plans: WeakKeyDictionary[nn.Module, dict[tuple, tuple[Watched, tuple, Plan]]] = WeakKeyDictionary()


def _parameters(layer: nn.Module, norm: nn.Module | None, _: str | None) -> tuple[Tensor, ...]:
    own = layer.weight, layer.bias
    return own if norm is None else (*own, norm.weight, norm.bias)


def _product(entry: LinearEntry, parameters: tuple[Tensor, ...]) -> Product:
    _, norm, kind = entry
    product = Product(*parameters)
    return product._replace(running=running_norm(norm)) if kind == RUNNING else product


def plan(blocks: Sequence[Block], x: Tensor) -> Plan:
    """The layers of blocks that formulas use on maps like ``x``.

    Args:
        blocks: Blocks of one stage.
        x: The residual stream before them.
    """
    key = len(blocks), has_rows(x)
    found = _plans.get(blocks[0], {}).get(key)
    if found is not None:
        watched, state, known = found
        if watched.is_of(blocks) and state == watched.state():
            return known
    layers = [entry for block in blocks for entry in block.linear_layers(x)]
    convs = [conv for block in blocks for conv in block.depthwise_layers()]
    parameters = [_parameters(*entry) for entry in layers]
    made = Plan(
        layers,
        parameters,
        list(map(_product, layers, parameters)),
        convs,
        [(conv.weight, conv.bias) for conv in convs],
    )
    watched = Watched(blocks)
    state = watched.state()
    if state is not None:
        _plans.setdefault(blocks[0], {})[key] = watched, state, made
    return made
