# SPDX-License-Identifier: Apache-2.0
"""The rule that every kernel is held to, and the case that it is held to it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tools.benchmark.comparisons import first_excess
from uniformer_mm.ops import depthwise_conv, reference

CONV = {2: F.conv2d, 3: F.conv3d}
NAMES = ('output', 'input gradient', 'weight gradient', 'bias gradient')


@dataclass(frozen=True)
class Case:
    """One depthwise convolution. ``shape`` is channels last."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    parameter_dtype: torch.dtype = torch.float32
    residual: bool = True
    bias: bool = True

    def __str__(self) -> str:
        extras = ('+x' if self.residual else '') + ('+b' if self.bias else '')
        sizes = ['x'.join(map(str, sizes)) for sizes in (self.shape, self.kernel)]
        dtypes = [str(d).split('.')[1] for d in (self.dtype, self.parameter_dtype)]
        return '-'.join((*sizes, *dtypes)) + extras

    def tensors(self, device: str) -> tuple[Tensor, ...]:
        """Input, taps, bias or None, cotangent; values exact in the dtype of the input."""
        draw = torch.Generator().manual_seed(0)
        channels = self.shape[-1]
        shapes = (self.shape, (channels, 1, *self.kernel), (channels,), self.shape)
        x, weight, bias, grad = (
            torch.randn(shape, generator=draw).to(self.dtype).to(device) for shape in shapes
        )
        weight, bias = weight.to(self.parameter_dtype), bias.to(self.parameter_dtype)
        for leaf in (x, weight, bias):
            leaf.requires_grad_()
        return x, weight, bias if self.bias else None, grad


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None, *, residual: bool) -> Tensor:
    """What users write without this package, in the dtype of the input."""
    rank = x.ndim - 2
    y = CONV[rank](
        x.movedim(-1, 1).contiguous(),
        weight.to(x.dtype),
        None if bias is None else bias.to(x.dtype),
        padding=[k // 2 for k in weight.shape[2:]],
        groups=weight.shape[0],
    ).movedim(1, -1)
    return x + y if residual else y


def results(function, case: Case, device: str, **kwargs) -> list[Tensor]:
    """Output and gradients of the case for its random cotangent."""
    *inputs, grad = case.tensors(device)
    y = function(*inputs, residual=case.residual, **kwargs)
    leaves = [leaf for leaf in inputs if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def assert_no_worse(case: Case, device: str, ours: list[Tensor]) -> None:
    """The rule, for a depthwise convolution."""
    truth = results(reference.depthwise_conv, case, device)
    other = results(by_pytorch, case, device)
    names = NAMES[: len(ours)]
    assert_errors(str(case), names, ours, other[: len(ours)], truth[: len(ours)])


def assert_errors(
    case: str,
    names: Sequence[str],
    ours: Sequence[Tensor],
    other: Sequence[Tensor],
    truth: Sequence[Tensor],
) -> None:
    """The rule that a benchmark holds its rows to as well."""
    excess = first_excess(names, ours, other, truth)
    assert excess is None, f'{case}: {excess}'


def check(case: Case, device: str, backend: str) -> None:
    """Outputs and all gradients of a backend, their dtypes and their memory layout."""
    ours = results(depthwise_conv, case, device, backend=backend)
    assert ours[0].dtype == ours[1].dtype == case.dtype
    assert all(grad.dtype == case.parameter_dtype for grad in ours[2:])
    assert ours[0].is_contiguous()
    assert_no_worse(case, device, ours)
