# SPDX-License-Identifier: Apache-2.0
"""The reference network against the released ones, and ours against it where no output exists.

Gradients, training mode, running statistics and odd variants have no golden outputs; the plain
reference, checked by these, gives them.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models.test_golden import load_case, relative_errors
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models import UniFormer2d, UniFormer2dClassifier, UniFormer3d
from uniformer_mm.models.arch import ARCHS, resolve_arch

GOLDEN = [
    'cls_tiny',
    'cls_small_plus',
    'cls_small_tl',
    'dense_small_window14',
    'video_small_split',
    'cls_xxs',
    'dense_xxs',
    'video_xxs_ls_4f',
]
TINY = {'depths': (1, 2, 4, 1), 'dims': (8, 16, 32, 48), 'head_dim': 16}
CONV = TINY | {'stem': 'conv', 'downsample': 'conv'}
LIGHT = TINY | {
    'depths': (1, 1, 3, 2),
    'stem': 'conv',
    'keep_ratios': ((1, 0.5, 0.3), (0.5, 0.7)),
}
# rank, arch, options of the dense network
VARIANTS = {
    'image': (2, TINY, {}),
    'conv_stem': (2, CONV, {}),
    'hybrid': (2, TINY | {'layer_scale': 0.3}, {'attention': 'hybrid', 'window_size': 3}),
    'clip': (3, TINY, {'patch_kernel_t': 3}),
    'clip_hybrid': (3, TINY, {'attention': 'hybrid', 'window_size': 3}),
    'light': (2, LIGHT, {}),
    'light_clip': (3, LIGHT | {'layer_scale': 0.3}, {}),
    'clip_divided': (3, CONV | {'layer_scale': 0.3}, {'attention': 'divided'}),
}


def reference(rank: int, arch: dict, **options) -> OfficialUniFormer:
    """The reference network of a row, in the keywords of :class:`Arch`."""
    return OfficialUniFormer(rank, **arch, **options)


def row(name: str) -> dict:
    fields = ('depths', 'dims', 'head_dim', 'mlp_ratio', 'stem', 'downsample')
    fields += ('layer_scale', 'layer_scale_in', 'token_labels', 'keep_ratios')
    return {field: getattr(ARCHS[name], field) for field in fields}


def randomise(model: nn.Module) -> None:
    """Parameters and running statistics far from their initial values."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.state_dict().items():
        if 'running_var' in name:
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor) * 0.1)


def both(rank: int, arch: dict, options: dict) -> tuple[nn.Module, nn.Module]:
    """Our dense network and the reference, in float64 with the same random state."""
    front = {2: UniFormer2d, 3: UniFormer3d}[rank]
    ours = front(arch, out_indices=(0, 1, 2, 3), **options).double()
    randomise(ours)
    theirs = reference(rank, arch, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def images(rank: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, 3, *((5,) * (rank - 2)), 75, 106)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('name', GOLDEN)
def test_reference_equals_the_released_networks(name: str) -> None:
    case, outputs, fill = load_case(name)
    dense = case['id'].startswith('dense')
    classes = None if dense else (400 if case.get('ndim') == 3 else 1000)
    options = {k: case[k] for k in ('attention', 'window_size', 'layer_scale') if k in case}
    model = reference(case.get('ndim', 2), row(case['arch']) | options, num_classes=classes)
    weights = {
        key: torch.from_numpy(fill.tensor_for(key, tuple(shape)))
        for key, shape in case['keys'].items()
    }
    model.load_state_dict(weights, strict=True)
    assert max(relative_errors(model.double().eval(), case, outputs, fill)) <= 1e-9


@pytest.mark.parametrize('fast', ['0', '1'], ids=['plain', 'fast'])
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_gradients_and_statistics_are_the_reference_s(
    variant: str, training: bool, batch: int, fast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one sample: where strides say nothing, PyTorch's BatchNorm on a CPU goes wrong."""
    monkeypatch.setenv('UNIFORMER_FAST', fast)
    rank, arch, options = VARIANTS[variant]
    ours, theirs = both(rank, arch, options)
    generator = torch.Generator().manual_seed(5)
    results = []
    for model in (ours.train(training), theirs.train(training)):
        x = images(rank, batch).requires_grad_()
        maps = model(x)
        generator.manual_seed(5)
        sum(
            (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in maps
        ).backward()
        grads = {name: p.grad for name, p in model.named_parameters()} | {'input': x.grad}
        results.append((maps, grads, model.state_dict()))
    (maps, grads, state), (want_maps, want_grads, want_state) = results
    for got, want in zip(maps, want_maps, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    for name, want in want_grads.items():
        assert (grads[name] - want).norm() <= 1e-9 * want.norm() + 1e-9, name
    torch.testing.assert_close(state, want_state, rtol=1e-10, atol=1e-10)


def test_classifier_with_token_labels_in_evaluation() -> None:
    arch = TINY | {'token_labels': True}
    ours = UniFormer2dClassifier(arch, num_classes=7).double()
    randomise(ours)
    theirs = reference(2, arch, num_classes=7).double()
    theirs.load_state_dict(ours.state_dict())
    x = images(2)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-10, atol=1e-10)


def test_reference_builds_every_arch() -> None:
    for name in ('tiny', 'small', 'small_plus', 'base_ls', 'large_ls_tl'):
        with torch.device('meta'):
            model = reference(2, row(name), num_classes=1000)
        assert sum(p.numel() for p in model.parameters()) == resolve_arch(name).params
