# SPDX-License-Identifier: Apache-2.0
"""Which layers of a block are parts of the formulas of ``fused.py``, and their weights for these.

Matrices are cast, with the norm before them folded in, and taps of depthwise convolutions are
transposed, anew in each pass from what the parameters hold then, for many blocks at once: one by
one they would be several launches for each block, each of which takes the host longer than the GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..ops import rows
from ..ops.rows import Product
from .fused_norm import RUNNING, product_dtype, running_norm, runs


class Matrix(NamedTuple):
    """A linear layer in a formula.

    Attributes:
        kind: What the norm before it is, see :class:`FusedNorm`; None without a norm.
        weight: Its matrix ``(O, C)``, cast, with the norm's affine part folded in.
        bias: Its bias ``(O,)``, likewise.
    """

    kind: str | None
    weight: Tensor
    bias: Tensor


class Weights(NamedTuple):
    """What the formulas of some blocks use; layers that are not in here are called instead.

    Attributes:
        matrices: Of linear layers.
        taps: ``taps_KC`` of depthwise convolutions.
    """

    matrices: dict[nn.Module, Matrix]
    taps: dict[nn.Module, Tensor]


def matrix_of(weights: Weights | None, layer: nn.Module) -> Matrix | None:
    """The matrix of a layer that is part of a formula; None if it is not."""
    return None if weights is None else weights.matrices.get(layer)


def taps_of(weights: Weights | None, conv: nn.Module) -> Tensor | None:
    """The taps of a depthwise convolution that is part of a formula; None if it is not."""
    return None if weights is None else weights.taps.get(conv)


# A linear layer, the norm folded into it and what that is, or None and None.
LinearEntry = tuple[nn.Module, nn.Module | None, str | None]


class Block(Protocol):
    """What a block tells of its layers."""

    def linear_layers(self, x: Tensor) -> Iterable[LinearEntry]:
        """Linear layers that formulas may use on ``x``, the norm folded into each, and its kind."""

    def depthwise_layers(self) -> Iterable[nn.Module]:
        """Depthwise convolutions that formulas may use."""


def _flat(weight: Tensor) -> Tensor:
    return weight if weight.ndim == 2 else weight.flatten(1)


def _product(layer: nn.Module, norm: nn.Module | None, kind: str | None) -> Product:
    if norm is None:
        return Product(_flat(layer.weight), layer.bias)
    running = running_norm(norm) if kind == RUNNING else None
    return Product(_flat(layer.weight), layer.bias, norm.weight, norm.bias, running)


def prepare(blocks: Iterable[Block], x: Tensor) -> Weights | None:
    """The weights of blocks on a map like ``x``; None where other forms than the formulas run.

    Args:
        blocks: Blocks of one stage.
        x: The residual stream before them.
    """
    if not runs(x):
        return None
    layers = [entry for block in blocks for entry in block.linear_layers(x)]
    convs = [conv for block in blocks for conv in block.depthwise_layers()]
    matrices, taps = {}, {}
    # The formulas have the gradients.
    with torch.no_grad():
        if layers:
            products = [_product(*entry) for entry in layers]
            kernels = rows.implementation(products[0].weight)
            folded = kernels.fold_all(products, product_dtype(x))
            for (layer, _, kind), pair in zip(layers, folded, strict=True):
                matrices[layer] = Matrix(kind, *pair)
        if convs:
            weights_CK = [_flat(conv.weight) for conv in convs]
            taps_KC = rows.implementation(weights_CK[0]).transpose_all(weights_CK)
            taps = dict(zip(convs, taps_KC, strict=True))
    return Weights(matrices, taps)
