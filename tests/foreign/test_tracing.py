# SPDX-License-Identifier: Apache-2.0
"""torch.jit.trace, torch.export, torch.fx and torchvision's feature extractor."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from .networks import (
    CASES,
    EVERY,
    LARGER,
    Case,
    assert_same,
    classifier,
    dense,
    loss_of,
    reference_of,
    sample,
)

# Odd sizes: none divides by the strides or the windows.
OTHER_SIZES = ((64, 80), (75, 106), (33, 47))


@pytest.fixture(autouse=True)
def without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch.jit is deprecated, and a tracer warns of each check of the input.
        warnings.simplefilter('ignore')
        yield


def networks(case: Case) -> tuple[nn.Module, nn.Module, Tensor]:
    model = dense(case).double().eval()
    return model, reference_of(case, model), sample(case)


@pytest.mark.parametrize('name', EVERY)
def test_jit_trace(name: str) -> None:
    """With gradients on and the check of the recorded graph, which takes a second trace."""
    case = CASES[name]
    model, reference, x = networks(case)
    traced = torch.jit.trace(model, x, check_trace=True)
    with torch.no_grad():
        again = torch.jit.trace(model, x, check_trace=True)
    operators = [[node.kind() for node in graph.inlined_graph.nodes()] for graph in (traced, again)]
    assert operators[0] == operators[1], 'the graph depends on the mode of gradients'
    assert not any('uniformer' in kind for kind in operators[0])
    stream = io.BytesIO()
    torch.jit.save(traced, stream)
    stream.seek(0)
    loaded = torch.jit.load(stream)
    z = x.flip(-1).requires_grad_()
    outputs, want = loaded(z), reference(z)
    assert_same(outputs, want, 1e-9)
    ours, theirs = (torch.autograd.grad(loss_of(y), z)[0] for y in (outputs, want))
    assert_same(ours, theirs, 1e-8)


@pytest.mark.parametrize('name', EVERY)
def test_a_trace_is_right_at_other_sizes(name: str) -> None:
    """Sizes are recorded as operations on shapes, so one graph serves all of them."""
    case = CASES[name]
    model, reference, x = networks(case)
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        for sides in OTHER_SIZES:
            z = sample(case, batch=3, sides=sides)
            assert_same(traced(z), reference(z), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_jit_freeze_and_optimize_for_inference(name: str) -> None:
    case = CASES[name]
    model, _, x = networks(case)
    model, x = model.float(), x.float()
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for _ in range(3):
            assert_same(frozen(x), model(x), 1e-4)


def dynamic_shapes(case: Case) -> dict:
    sides = {1 + case.ndim - 1: torch.export.Dim.DYNAMIC, 1 + case.ndim: torch.export.Dim.DYNAMIC}
    return {0: torch.export.Dim.DYNAMIC} | sides


@pytest.mark.slow
@pytest.mark.parametrize('strict', [True, False], ids=['strict', 'non-strict'])
@pytest.mark.parametrize('name', EVERY)
def test_export(name: str, strict: bool) -> None:
    """One program for all batches, and all sizes whose stages have sides above 1."""
    case = CASES[name]
    model, reference, _ = networks(case)
    x = sample(case, sides=LARGER)
    program = torch.export.export(
        model, (x,), dynamic_shapes=(dynamic_shapes(case),), strict=strict
    )
    assert 'uniformer' not in str(program.graph)
    with torch.no_grad():
        for sides in ((64, 96), (75, 106), (131, 70)):
            z = sample(case, batch=3, sides=sides)
            assert_same(program.module()(z), reference(z), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['image_global', 'clip_divided', 'image_hourglass'])
def test_export_of_a_training_network_moves_its_statistics(name: str) -> None:
    case = CASES[name]
    model, _, x = networks(case)
    model = model.train()
    reference = reference_of(case, model)
    program = torch.export.export(model, (x,)).module()
    outputs, want = program(x), reference(x)
    assert_same(outputs, want, 1e-9)
    state, theirs = program.state_dict(), reference.state_dict()
    for key, value in theirs.items():
        torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', EVERY)
def test_symbolic_trace(name: str, training: bool) -> None:
    case = CASES[name]
    model = dense(case).double().train(training)
    reference = reference_of(case, model)
    graph = fx.symbolic_trace(model)
    graph.graph.lint()
    for sides in OTHER_SIZES:
        x = sample(case, sides=sides).requires_grad_()
        outputs, want = graph(x), reference(x)
        assert_same(outputs, want, 1e-9)
        ours, theirs = (torch.autograd.grad(loss_of(y), x)[0] for y in (outputs, want))
        assert_same(ours, theirs, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_symbolic_trace_of_classifiers(name: str) -> None:
    case = CASES[name]
    model = classifier(case).double().eval()
    x = sample(case)
    assert_same(fx.symbolic_trace(model)(x), reference_of(case, model)(x), 1e-9)


@pytest.mark.parametrize('name', EVERY)
def test_feature_extractor_of_torchvision(name: str) -> None:
    """Nodes by the names of modules, in both modes, as maps (B, C, *S)."""
    case = CASES[name]
    model, reference, x = networks(case)
    nodes = ['patch_embed1', 'blocks1.0', 'blocks2.0', 'patch_embed3', 'blocks3.0.mlp']
    if not case.hourglass:
        nodes += ['blocks3.0', 'blocks3.1', 'blocks4.0']
    trained, evaluated = get_graph_node_names(model)
    # torchvision names a module's node by the last operation in it.
    assert {node for node in nodes if not any(name.startswith(node) for name in evaluated)} == set()
    assert trained == evaluated
    extractor = create_feature_extractor(model, nodes)
    want = {}
    for node in nodes:
        reference.get_submodule(node).register_forward_hook(
            lambda _, __, y, node=node: want.update({node: y})
        )
    with torch.no_grad():
        found = extractor(x)
        reference(x)
    assert found.keys() == want.keys()
    for node in nodes:
        if 'window_size' in case.options and node.endswith('mlp'):
            assert found[node].ndim == 3
            want[node] = want[node].flatten(1, -2)
        assert_same(found[node], want[node], 1e-9)
    assert extractor.train().training
    extractor(x)
