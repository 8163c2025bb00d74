# SPDX-License-Identifier: Apache-2.0
"""torch.compile takes each network as one graph, and one graph serves all image sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from uniformer_mm.models import (
    UniFormer2d,
    UniFormer2dClassifier,
    UniFormer3d,
    UniFormer3dClassifier,
)

SHORT = {'depths': (1, 1, 1, 1), 'dims': (8, 8, 16, 16), 'head_dim': 8}
FRONTS = {
    (2, False): UniFormer2d,
    (3, False): UniFormer3d,
    (2, True): UniFormer2dClassifier,
    (3, True): UniFormer3dClassifier,
}
LIGHT = {'depths': (1, 1, 2, 1), 'stem': 'conv', 'keep_ratios': ((1, 0.5), (0.5,))}
# rank, whether a classifier, arch, options, whether training
CASES = {
    'image_hybrid_eval': (
        2,
        False,
        {'depths': (1, 1, 4, 1)},
        {'attention': 'hybrid', 'window_size': 3},
        False,
    ),
    'image_train': (2, False, {'layer_scale': 0.1}, {'drop_path_rate': 0.5}, True),
    'image_checkpointing': (2, False, {}, {'with_cp': (1, 0, 1, 0)}, True),
    'conv_stem_classifier_eval': (2, True, {'stem': 'conv', 'downsample': 'conv'}, {}, False),
    'token_labels_train': (2, True, {'token_labels': True}, {}, True),
    'clip_window_eval': (3, False, {}, {'attention': 'window', 'window_size': 3}, False),
    'clip_divided_train': (3, False, {}, {'attention': 'divided', 'patch_kernel_t': 3}, True),
    'clip_classifier_eval': (3, True, {}, {}, False),
    'light_classifier_train': (2, True, LIGHT, {'drop_path_rate': 0.5}, True),
    'light_checkpointing': (2, False, LIGHT, {'with_cp': (0, 0, 2, 0)}, True),
    'light_clip_classifier_eval': (3, True, LIGHT, {}, False),
}
GRADIENT_CASES = ('image_train', 'image_checkpointing')
LIGHT_CASES = [case for case in CASES if case.startswith('light')]
# First a size whose sides differ, or the compiler takes them for one number.
SIDES = ((64, 96), (72, 100), (96, 80))


def network(rank: int, classifier: bool, arch: dict, options: dict) -> nn.Module:
    torch.manual_seed(0)
    extra = {'num_classes': 5} if classifier else {'as_tuple': True}
    if not classifier:
        extra['out_indices'] = (1, 2)
    return FRONTS[rank, classifier](SHORT | arch, **extra, **options)


def results(call, x: torch.Tensor, training: bool) -> list[torch.Tensor]:
    """Maps and logits; the draws of stochastic depth and mixed boxes repeat."""
    torch.manual_seed(1)
    with torch.set_grad_enabled(training):
        y = call(x)
    outputs = y if isinstance(y, tuple) else (y,)
    # The last output of token labelling is a box.
    return [output for output in outputs if isinstance(output, torch.Tensor)]


def check_compiled(case: str, sides: tuple[tuple[int, int], ...], **options: object) -> None:
    """Outputs and gradients of the compiled network equal the others; one graph serves all."""
    rank, classifier, arch, arguments, training = CASES[case]
    model = network(rank, classifier, arch, arguments).train(training)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, fullgraph=True, **options)
    for side in sides:
        x = torch.randn(2, 3, *((4,) * (rank - 2)), *side)
        got = results(compiled, x, training)
        want = results(model, x, training)
        for y, z in zip(got, want, strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
        if training:
            model.zero_grad()
            sum(y.square().sum() for y in got).backward()
            grads = {n: p.grad.clone() for n, p in model.named_parameters()}
            model.zero_grad()
            sum(y.square().sum() for y in want).backward()
            for name, p in model.named_parameters():
                assert (grads[name] - p.grad).norm() <= 1e-3 * p.grad.norm() + 1e-4, name
    assert counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize('case', CASES)
def test_one_graph_for_all_sizes(case: str) -> None:
    # Tracing gradients for unknown sizes too takes several times as long, for clips a minute, and
    # for light networks, whose numbers of tokens are rounded shares of products of rounded shares,
    # minutes.
    backend = 'aot_eager' if case in GRADIENT_CASES else 'eager'
    check_compiled(case, SIDES, dynamic=True, backend=backend)


@pytest.mark.parametrize('training', [False, True])
def test_a_single_row_or_column_of_windows(training: bool) -> None:
    """A graph of its own: to a compiler 1 is no size but a missing axis."""
    model = network(2, False, {}, {'attention': 'window', 'window_size': 6}).train(training)
    torch._dynamo.reset()
    counters.clear()
    # Also the gradients, where there are some.
    backend = 'aot_eager' if training else 'eager'
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for batch, side in ((2, (128, 160)), (2, (64, 128)), (3, (160, 128))):
        x = torch.randn(batch, 3, *side)
        results_of = [results(call, x, training) for call in (compiled, model)]
        for y, z in zip(*results_of, strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
        if training:
            grads = [
                torch.autograd.grad(sum(y.square().sum() for y in maps), list(model.parameters()))
                for maps in results_of
            ]
            for found, expected in zip(*grads, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert counters['stats']['unique_graphs'] == 2


@pytest.mark.parametrize(
    'case', [*LIGHT_CASES, 'image_hybrid_eval', 'token_labels_train', 'clip_divided_train']
)
def test_one_size_with_all_operators_traced(case: str) -> None:
    check_compiled(case, SIDES[:1], dynamic=False, backend='aot_eager')


def test_checkpointed_blocks_move_statistics_once_when_compiled() -> None:
    rank, classifier, arch, options, _ = CASES['image_checkpointing']
    torch._dynamo.reset()
    models = [network(rank, classifier, arch, options).train() for _ in range(2)]
    compiled = torch.compile(models[0], fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 3, 64, 96)
    for call in (compiled, models[1]):
        sum(y.sum() for y in call(x)).backward()
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict())


@pytest.mark.slow
def test_inductor_gives_the_same_maps() -> None:
    torch._dynamo.reset()
    model = network(2, False, {}, {}).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        got = torch.compile(model, fullgraph=True)(x)
        for y, z in zip(got, model(x), strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
