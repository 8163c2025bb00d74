# SPDX-License-Identifier: Apache-2.0
"""Small networks with every kind of block, and the plain reference that holds the same weights.

The tests of this folder use tools that other people wrote: what a tool finds in our network is
compared with what it finds in the reference, which is ordinary PyTorch, or with a truth of its own
(finite differences, closed forms).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models import (
    UniFormer2d,
    UniFormer2dClassifier,
    UniFormer3d,
    UniFormer3dClassifier,
)

FRONTS = {2: UniFormer2d, 3: UniFormer3d}
CLASSIFIERS = {2: UniFormer2dClassifier, 3: UniFormer3dClassifier}

TINY = {'depths': (1, 1, 2, 1), 'dims': (8, 8, 16, 16), 'head_dim': 8, 'layer_scale': 0.5}
CONV = TINY | {'stem': 'conv', 'downsample': 'conv'}
LIGHT = TINY | {'stem': 'conv', 'keep_ratios': ((1, 0.5), (0.5,))}


@dataclass(frozen=True)
class Case:
    """One kind of attention in one number of axes; stages 1 and 2 hold convolution blocks."""

    ndim: int
    arch: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    @property
    def hourglass(self) -> bool:
        return 'keep_ratios' in self.arch


# Windows of 3 tokens: the maps of stage 3 do not divide by it. Hybrid networks have depth 4.
WINDOW = {'attention': 'window', 'window_size': 3}
HYBRID = {'attention': 'hybrid', 'window_size': 3}
CASES = {
    'image_global': Case(2, TINY),
    'image_conv': Case(2, CONV),
    'image_window': Case(2, TINY, WINDOW),
    'image_hybrid': Case(2, TINY | {'depths': (1, 1, 4, 1)}, HYBRID),
    'image_hourglass': Case(2, LIGHT),
    'clip_global': Case(3, TINY),
    'clip_window': Case(3, TINY, WINDOW),
    'clip_divided': Case(3, TINY, {'attention': 'divided'}),
    'clip_hourglass': Case(3, LIGHT),
}
# `make test` takes those that hold each kind of block once, `make test-all` takes all.
FAST = ('image_window', 'image_hourglass', 'clip_divided')
EVERY = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name) for name in CASES
]
SIDES = (48, 64)
# For exporters that take a side of 1 for a constant: stage 4 has more here.
LARGER = (80, 112)
FRAMES = 4


def randomise(model: nn.Module) -> None:
    """Parameters and running statistics far from their initial values."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.state_dict().items():
        if 'running_var' in name:
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor) * 0.1)


def dense(case: Case, **options) -> nn.Module:
    """Our dense network, all four maps, with random weights."""
    torch.manual_seed(0)
    model = FRONTS[case.ndim](
        case.arch, out_indices=(0, 1, 2, 3), **{'out_norm': 'ln', **case.options, **options}
    )
    randomise(model)
    return model


def reference_of(case: Case, model: nn.Module) -> OfficialUniFormer:
    """The reference network with the weights, dtype and mode of ``model``."""
    head = getattr(model, 'head', None)
    classes = None if head is None else head.out_features
    reference = OfficialUniFormer(case.ndim, **case.arch, **case.options, num_classes=classes)
    reference.load_state_dict(model.state_dict())
    return reference.to(next(model.parameters()).dtype).train(model.training)


def classifier(case: Case, num_classes: int = 5) -> nn.Module:
    """Our classifier with random weights."""
    torch.manual_seed(0)
    model = CLASSIFIERS[case.ndim](case.arch, num_classes=num_classes, **case.options)
    randomise(model)
    return model


def sample(
    case: Case,
    batch: int = 2,
    sides: tuple[int, int] = SIDES,
    dtype: torch.dtype = torch.float64,
    frames: int = FRAMES,
) -> Tensor:
    """Images (B, 3, H, W) or clips (B, 3, T, H, W)."""
    draw = torch.Generator().manual_seed(3)
    shape = (batch, 3, *((frames,) * (case.ndim - 2)), *sides)
    return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)


def tensors(outputs: object) -> Iterator[Tensor]:
    """The tensors among a module's outputs (hourglass blocks return three)."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Iterable):
        for output in outputs:
            yield from tensors(output)


def loss_of(outputs: object) -> Tensor:
    """A smooth scalar in which every entry of the outputs has its own share (no random draws)."""
    total = 0.0
    for y in tensors(outputs):
        share = torch.arange(y.numel(), dtype=torch.float64).add(1).mul(1.7).cos()
        share = share.view(y.shape).to(y.dtype)
        total = total + (share * y).sum() + (share * y.sin()).sum()
    return total


def assert_same(got: object, want: object, tolerance: float = 1e-9) -> None:
    """Equal tensors in equal number, by the largest difference relative to the largest value."""
    got, want = list(tensors(got)), list(tensors(want))
    assert len(got) == len(want)
    for y, z in zip(got, want, strict=True):
        assert y.shape == z.shape
        error = (y.double() - z.double()).abs().max() / z.double().abs().max().clamp(min=1e-30)
        assert error <= tolerance, f'{error:.2e} for {tuple(z.shape)}'
