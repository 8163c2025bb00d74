# SPDX-License-Identifier: Apache-2.0
"""Derivatives of derivatives, and torch.func, against differences and the plain reference."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from .networks import CASES, EVERY, Case, assert_same, dense, loss_of, reference_of, sample, tensors

STEP = 1e-5


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def directions(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A random direction for each name, whatever the order of the names."""
    draw = torch.Generator().manual_seed(9)
    return {
        name: torch.randn(values[name].shape, generator=draw, dtype=torch.float64).to(values[name])
        for name in sorted(values)
    }


def hessian_products(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """H v of the loss in all parameters and the input, by a second backward pass."""
    x = x.clone().requires_grad_()
    named = dict(model.named_parameters()) | {'input': x}
    v = directions(named)
    first = torch.autograd.grad(loss_of(model(x)), list(named.values()), create_graph=True)
    inner = sum((g * v[name]).sum() for name, g in zip(named, first, strict=True))
    return dict(zip(named, torch.autograd.grad(inner, list(named.values())), strict=True))


def hessian_differences(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The same from two first derivatives: they need no second backward pass."""
    model = copy.deepcopy(model)
    named = dict(model.named_parameters()) | {'input': x.clone().requires_grad_()}
    v = directions(named)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            moved = {name: value + sign * STEP * v[name] for name, value in named.items()}
        x = moved.pop('input').requires_grad_()
        leaves = {name: value.requires_grad_() for name, value in moved.items()}
        loss = loss_of(functional_call(model, leaves, (x,)))
        sides.append(torch.autograd.grad(loss, [*leaves.values(), x]))
    return {
        name: (plus - minus) / (2 * STEP) for name, plus, minus in zip(named, *sides, strict=True)
    }


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    largest = max(float(tensor.norm()) for tensor in want.values())
    for name, tensor in want.items():
        error = float((got[name] - tensor).norm())
        assert error <= tolerance * (float(tensor.norm()) + 1e-3 * largest), name


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', EVERY)
def test_hessian_vector_products(name: str, training: bool) -> None:
    """Against the reference's second backward pass and against differences of gradients."""
    case = CASES[name]
    model = dense(case).double().train(training)
    reference, x = reference_of(case, model), sample(case)
    found = hessian_products(copy.deepcopy(model), x)
    assert_close(found, hessian_products(reference, x), 1e-8)
    assert_close(found, hessian_differences(model, x), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_hessian_vector_products_in_float32(name: str) -> None:
    """As on the devices and dtypes that have fast forms."""
    case = CASES[name]
    model = dense(case).train()
    reference, x = reference_of(case, model).double(), sample(case)
    found = hessian_products(model, x.float())
    want = hessian_products(reference, x)
    assert_close({name: value.double() for name, value in found.items()}, want, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_autograd_functional_hvp_and_vhp(name: str) -> None:
    case = CASES[name]
    model = dense(case).double().eval()
    reference, x = reference_of(case, model), sample(case, batch=1)
    v = directions({'input': x})['input']
    for call in (torch.autograd.functional.hvp, torch.autograd.functional.vhp):
        ours, theirs = (call(lambda x, m=m: loss_of(m(x)), x, v) for m in (model, reference))
        assert_same(ours, theirs, 1e-8)
        assert theirs[1].abs().max() > 1e-3


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The first block of each kind."""
    found = {'stage1': model.blocks1[0], 'stage3': model.blocks3[0], 'stage4': model.blocks4[0]}
    return found | {'stem': model.patch_embed1, 'downsample': model.patch_embed3}


def block_input(case: Case, model: nn.Module, place: str) -> tuple[Tensor, ...]:
    dims = case.arch['dims']
    width = {'stage1': dims[0], 'stage3': dims[2], 'stage4': dims[3], 'stem': 3}
    width['downsample'] = dims[1]
    draw = torch.Generator().manual_seed(1)
    frames = (2,) * (case.ndim - 2)
    side = (5, 4)
    x = torch.randn((1, width[place], *frames, *side), generator=draw).double()
    if case.hourglass and place in ('stage3', 'stage4'):
        scores = torch.rand(1, *frames, *side, generator=draw).double()
        return x, torch.randn(1, 1, width[place], generator=draw).double(), scores
    return (x,)


@pytest.mark.parametrize('name', EVERY)
def test_hessian_of_each_kind_of_block(name: str) -> None:
    """The whole matrix in a few entries of the map: symmetric, and that of differences."""
    case = CASES[name]
    model = dense(case).double().eval()
    for place, block in blocks(model).items():
        x, *others = block_input(case, model, place)

        def loss(z: Tensor, block: nn.Module = block, x: Tensor = x, others=tuple(others)):
            flat = x.flatten().index_put((torch.arange(4) * 7,), z)
            outputs = block(flat.view(x.shape), *others)
            # The order of hourglass scores is what the block's caller hands on.
            return loss_of(outputs if isinstance(outputs, Tensor) else outputs[:2])

        z = torch.linspace(-1, 1, 4, dtype=torch.float64)
        found = torch.autograd.functional.hessian(loss, z)
        rows = []
        for unit in torch.eye(4, dtype=torch.float64):
            sides = []
            for sign in (1, -1):
                moved = (z + sign * STEP * unit).requires_grad_()
                sides.append(torch.autograd.grad(loss(moved), moved)[0])
            rows.append((sides[0] - sides[1]) / (2 * STEP))
        assert found.norm() > 1e-3, place
        assert_same(found, torch.stack(rows), 1e-5)
        assert_same(found, found.T, 1e-9)
        assert_same(torch.func.hessian(loss)(z), found, 1e-8)


@pytest.mark.parametrize('name', EVERY)
def test_gradients_of_each_sample(name: str) -> None:
    """vmap of grad, against a loop."""
    case = CASES[name]
    model = dense(case).double().eval()
    x, values = sample(case, batch=3), parameters(model)

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return loss_of(functional_call(model, values, (x[None],)))

    found = vmap(grad(loss), in_dims=(None, 0))(values, x)
    for index, one in enumerate(x):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        reference = reference_of(case, model)
        want = torch.autograd.grad(
            loss_of(functional_call(reference, leaves, (one[None],))), list(leaves.values())
        )
        got = {name: tensor[index] for name, tensor in found.items()}
        assert_close(got, dict(zip(leaves, want, strict=True)), 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_jacobians(name: str) -> None:
    """jacrev of the last map's means in the output norm's bias and in a deep parameter."""
    case = CASES[name]
    model = dense(case).double().eval()
    reference, x = reference_of(case, model), sample(case, batch=1)
    values = {'blocks3.0.norm1.weight': model.blocks3[0].norm1.weight.detach()}

    def means(model: nn.Module, values: dict[str, Tensor]) -> Tensor:
        return functional_call(model, values, (x,))[-1].flatten(2).mean(-1)[0]

    found = jacrev(lambda values: means(model, values))(values)
    want = []
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    for entry in means(reference, leaves):
        want.append(torch.autograd.grad(entry, list(leaves.values()), retain_graph=True)[0])
    assert_same(next(iter(found.values())), torch.stack(want), 1e-8)


@pytest.mark.parametrize('name', EVERY)
def test_forward_mode(name: str) -> None:
    """jvp against a difference of outputs."""
    case = CASES[name]
    model = dense(case).double().eval()
    x = sample(case, batch=1)
    v = directions({'input': x})['input']
    _, found = torch.func.jvp(lambda x: tuple(tensors(model(x))), (x,), (v,))
    with torch.no_grad():
        plus, minus = (tuple(tensors(model(x + sign * STEP * v))) for sign in (1, -1))
    assert_same(found, [(p - m) / (2 * STEP) for p, m in zip(plus, minus, strict=True)], 1e-5)
