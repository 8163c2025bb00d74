# SPDX-License-Identifier: Apache-2.0
"""Clipping by the norm over all ranks: values in one process and two, odd parts, few launches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from uniformer_mm.optim import sharding
from uniformer_mm.optim.sharding import clip_sharded_grad_norm
from uniformer_mm.optim.tensor_groups import grouped

MAX_NORM = 2.0


def parameters(
    shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(len(shapes))
    found = []
    for shape in shapes:
        p = nn.Parameter(torch.zeros(shape, dtype=dtype))
        p.grad = torch.randn(shape, generator=generator).to(dtype)
        found.append(p)
    return found


def float64_norm(gradients: list[torch.Tensor]) -> float:
    return sum(float((g.double() ** 2).sum()) for g in gradients) ** 0.5


@pytest.mark.parametrize('shapes', [[(3, 4), (7,)], [(0,), (5,), (0,)], [(2,), (0,)]])
def test_it_is_torch_s_clipping_in_one_process(shapes: list[tuple[int, ...]]) -> None:
    ours, theirs = parameters(shapes), parameters(shapes)
    before = [p.grad.clone() for p in ours]
    norm = clip_sharded_grad_norm(ours, MAX_NORM)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, MAX_NORM))
    assert norm.item() == pytest.approx(float64_norm(before), rel=1e-6)
    factor = min(1.0, MAX_NORM / (float64_norm(before) + 1e-6))
    for p, q, gradient in zip(ours, theirs, before, strict=True):
        torch.testing.assert_close(p.grad, q.grad)
        torch.testing.assert_close(p.grad, gradient * factor)


@pytest.mark.parametrize('mine', [[(4, 5), (6,)], [(0,), (0,)]])
def test_another_rank_s_parts_count(mine: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a rank that holds nothing, which must take part in the sum all the same."""
    elsewhere = parameters([(8,), (3, 3)])
    theirs = float64_norm([p.grad for p in elsewhere])
    monkeypatch.setattr(sharding, 'all_reduce', lambda squares: squares.add_(theirs**2))
    ours = parameters(mine)
    before = [p.grad.clone() for p in ours]
    expected = float64_norm([*before, *(p.grad for p in elsewhere)])
    assert clip_sharded_grad_norm(ours, MAX_NORM).item() == pytest.approx(expected, rel=1e-6)
    for p, gradient in zip(ours, before, strict=True):
        torch.testing.assert_close(p.grad, gradient * min(1.0, MAX_NORM / expected))


def test_half_precision_does_not_overflow_and_dtypes_may_mix() -> None:
    (half,), (first, last) = parameters([(6, 6)], torch.float16), parameters([(5,), (2,)])
    half.grad.fill_(3e4)
    ours, max_norm = [first, half, last], 1e4
    before = [p.grad.clone() for p in ours]
    norm = clip_sharded_grad_norm(ours, max_norm)
    # 1.8e5, beyond the largest number of half precision.
    assert norm.item() == pytest.approx(float64_norm(before), rel=1e-4)
    for p, gradient in zip(ours, before, strict=True):
        assert p.grad.dtype == gradient.dtype
        expected = gradient.double() * max_norm / float64_norm(before)
        torch.testing.assert_close(p.grad.double(), expected, rtol=2e-3, atol=1e-6)


class Operators(TorchDispatchMode):
    """Keeps what the framework is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.calls.append((operator.overloadpacket, args))
        return operator(*args, **(kwargs or {}))


def test_launches_do_not_grow_with_the_parameters() -> None:
    counted = []
    for number in (3, 30):
        params = parameters([(4,)] * number)
        with Operators() as operators:
            clip_sharded_grad_norm(params, MAX_NORM)
        counted.append(len(operators.calls))
    assert counted[0] == counted[1]


def test_empty_parts_do_not_reach_operators_on_lists() -> None:
    """On a GPU torch up to 2.5 gives wrong norms for the others (pytorch issue 140066)."""
    with Operators() as operators:
        clip_sharded_grad_norm(parameters([(3,), (0,), (5,), (0,)]), MAX_NORM)
    lists = (torch.ops.aten._foreach_norm, torch.ops.aten._foreach_mul_)
    asked = [[len(part) for part in args[0]] for name, args in operators.calls if name in lists]
    assert asked == [[3, 5], [3, 5]]


def test_lists_are_split_by_device_and_dtype_and_stay_aligned() -> None:
    a = torch.ones(1), torch.ones(2, dtype=torch.half), torch.ones(3), torch.ones(4, device='meta')
    b = [tensor.new_zeros(tensor.shape) for tensor in a]
    groups = [[(len(x), len(y)) for x, y in zip(*pair, strict=True)] for pair in grouped(a, b)]
    assert groups == [[(1, 1), (3, 3)], [(2, 2)], [(4, 4)]]
    assert list(grouped([])) == []
