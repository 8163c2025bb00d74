# SPDX-License-Identifier: Apache-2.0
"""Folding and its gradients by hand, against autograd and against layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from uniformer_mm.fast.fold import (
    fold,
    fold_grad,
    running_affine,
    scale_outputs,
    scale_outputs_grad,
)
from uniformer_mm.ops import rows


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes
    ]


@pytest.mark.parametrize('extra', [(), (1, 1)])
def test_fold_grad_equals_autograd(extra: tuple[int, ...]) -> None:
    weight, bias, scale, shift = leaves((5, 3, *extra), (5,), (3,), (3,))
    results = fold(weight, bias, scale, shift)
    cotangents = [torch.randn_like(result) for result in results]
    expected = torch.autograd.grad(results, (weight, scale, shift, bias), cotangents)
    found, affine = fold_grad(*cotangents, *(t.detach() for t in (weight, scale, shift)))
    torch.testing.assert_close([found, *affine, cotangents[1]], list(expected))
    assert torch.autograd.gradcheck(fold, (weight, bias, scale, shift))
    assert torch.autograd.gradgradcheck(fold, (weight, bias, scale, shift))


@pytest.mark.parametrize('extra', [(), (1, 1)])
def test_scale_outputs_grad_equals_autograd(extra: tuple[int, ...]) -> None:
    weight, bias, gamma = leaves((5, 3, *extra), (5,), (1, 5, 1, 1))
    results = scale_outputs(weight, bias, gamma)
    cotangents = [torch.randn_like(result) for result in results]
    expected = torch.autograd.grad(results, (weight, bias, gamma), cotangents)
    found = scale_outputs_grad(*cotangents, *(t.detach() for t in (weight, bias, gamma)))
    torch.testing.assert_close(list(found), list(expected))


def test_a_batch_norm_in_evaluation_is_folded() -> None:
    norm, linear = nn.BatchNorm1d(3).double().eval(), nn.Linear(3, 5).double()
    (x,) = leaves((7, 3))
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    expected = linear(norm(x))
    matrix, bias = fold(linear.weight, linear.bias, *running_affine(norm))
    torch.testing.assert_close(x @ matrix.t() + bias, expected)
    statistics = rows.RunningNorm(norm.running_mean, norm.running_var, norm.eps)
    matrix, bias = rows.implementation(x).fold(
        linear.weight, linear.bias, norm.weight, norm.bias, torch.float64, statistics
    )
    torch.testing.assert_close(x @ matrix.t() + bias, expected)


def test_autocast_rounds_nothing() -> None:
    tensors = [t.detach().float() for t in leaves((5, 3), (5,), (3,), (3,))]
    with torch.autocast('cpu', torch.bfloat16):
        found = fold(*tensors)
    torch.testing.assert_close(found, fold(*tensors), rtol=0, atol=0)
