# SPDX-License-Identifier: Apache-2.0
"""Which layers of a block are parts of the formulas of ``fused.py``, and their weights for these.

Matrices are cast, with the norm before them folded in, and taps of depthwise convolutions are
transposed, anew in each pass from what the parameters hold then, for many blocks at once: one by
one they would be several launches for each block, each of which takes the host longer than the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops import rows
from .fused_norm import product_dtype, runs
from .plan import Block, plan


class Matrix(NamedTuple):
    """A linear layer in a formula.

    Attributes:
        kind: What the norm before it is, see :class:`FusedNorm`; None without a norm.
        weight: Its matrix ``(O, C)``, cast, with the norm's affine part folded in.
        bias: Its bias ``(O,)``, likewise.
        parameters: The layer's own weight and bias, then the norm's: what gradients are for.
    """

    kind: str | None
    weight: Tensor
    bias: Tensor
    parameters: tuple[Tensor, ...]


class Taps(NamedTuple):
    """A depthwise convolution in a formula.

    Attributes:
        taps: Its weight as ``taps_KC``.
        weight: Its own weight.
        bias: Its own bias.
        dtype: Of matrix products, which maps around the convolution may have.
    """

    taps: Tensor
    weight: Tensor
    bias: Tensor
    dtype: torch.dtype


class Weights(NamedTuple):
    """What the formulas of some blocks use; layers that are not in here are called instead.

    Attributes:
        matrices: Of linear layers.
        taps: Of depthwise convolutions.
    """

    matrices: dict[nn.Module, Matrix]
    taps: dict[nn.Module, Taps]


def matrix_of(weights: Weights | None, layer: nn.Module) -> Matrix | None:
    """The matrix of a layer that is part of a formula; None if it is not."""
    return None if weights is None else weights.matrices.get(layer)


def taps_of(weights: Weights | None, conv: nn.Module) -> Taps | None:
    """The taps of a depthwise convolution that is part of a formula; None if it is not."""
    return None if weights is None else weights.taps.get(conv)


def prepare(blocks: Sequence[Block], x: Tensor) -> Weights | None:
    """The weights of blocks on a map like ``x``; None where other forms than the formulas run.

    Args:
        blocks: Blocks of one stage.
        x: The residual stream before them.
    """
    if not runs(x):
        return None
    layers, parameters, products, convs, conv_parameters = plan(blocks, x)
    matrices, taps, dtype = {}, {}, product_dtype(x)
    # The formulas have the gradients.
    with torch.no_grad():
        if layers:
            kernels = rows.implementation(products[0].weight)
            folded = kernels.fold_all(products, dtype)
            for (layer, _, kind), pair, own in zip(layers, folded, parameters, strict=True):
                matrices[layer] = Matrix(kind, *pair, own)
        if convs:
            weights = [weight for weight, _ in conv_parameters]
            transposed = rows.implementation(weights[0]).transpose_all(weights)
            for conv, taps_KC, pair in zip(convs, transposed, conv_parameters, strict=True):
                taps[conv] = Taps(taps_KC, *pair, dtype)
    return Weights(matrices, taps)
