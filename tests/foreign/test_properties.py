# SPDX-License-Identifier: Apache-2.0
"""Whatever the sizes, dtype, attention and outputs: the reference's maps, or one clear error."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.models.official import OfficialUniFormer

from .networks import CONV, FRONTS, LIGHT, TINY, Case, assert_same, loss_of, randomise, sample

hypothesis = pytest.importorskip('hypothesis', reason='hypothesis is not installed')
given, strategies = hypothesis.given, hypothesis.strategies
pytestmark = pytest.mark.slow
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


def settings(examples: int) -> hypothesis.settings:
    """The same draws in every run; no timed assertion."""
    return hypothesis.settings(
        max_examples=examples, deadline=None, derandomize=True, database=None
    )


sides = strategies.tuples(strategies.integers(32, 110), strategies.integers(32, 110))
outputs = strategies.sets(strategies.integers(0, 3), min_size=1).map(sorted).map(tuple)


@strategies.composite
def cases(draw: strategies.DrawFn) -> Case:
    ndim = draw(strategies.sampled_from((2, 3)))
    arch = draw(strategies.sampled_from((TINY, CONV, LIGHT)))
    depths = (1, 1, draw(strategies.integers(1, 4)), draw(strategies.integers(1, 2)))
    arch = arch | {'depths': depths, 'mlp_ratio': draw(strategies.sampled_from((4, 1.5)))}
    arch['layer_scale'] = draw(strategies.sampled_from((None, 0.5)))
    if 'keep_ratios' in arch:
        ratios = strategies.sampled_from((0.3, 0.5, 0.75, 1))
        rest = [tuple(draw(ratios) for _ in range(depth)) for depth in depths[2:]]
        # The first block has no scores to choose by.
        return Case(ndim, arch | {'keep_ratios': ((1, *rest[0][1:]), rest[1])})
    kinds = ('global', 'window', 'hybrid') + (('divided',) if ndim == 3 else ())
    options = {'attention': draw(strategies.sampled_from(kinds))}
    if options['attention'] in ('window', 'hybrid'):
        options['window_size'] = draw(strategies.integers(1, 8))
    return Case(ndim, arch, options)


@settings(60)
@given(
    case=cases(),
    out_indices=outputs,
    batch=strategies.integers(1, 3),
    size=sides,
    frames=strategies.integers(1, 5),
    dtype=strategies.sampled_from((torch.float64, torch.float32)),
    training=strategies.booleans(),
    gradients=strategies.booleans(),
)
def test_maps_are_the_reference_s(
    case: Case,
    out_indices: tuple[int, ...],
    batch: int,
    size: tuple[int, int],
    frames: int,
    dtype: torch.dtype,
    training: bool,
    gradients: bool,
) -> None:
    if training and batch == 1:
        # Some maps are one value for each channel: BatchNorm refuses those.
        batch = 2
    torch.manual_seed(0)
    model = FRONTS[case.ndim](
        case.arch, out_indices=out_indices, out_norm='ln', as_tuple=True, **case.options
    )
    randomise(model)
    reference = OfficialUniFormer(case.ndim, **case.arch, **case.options)
    missing, unexpected = reference.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    built = range(1, max(out_indices) + 2)
    assert not any(key.startswith(f'blocks{stage}.') for key in missing for stage in built)
    model, reference = model.to(dtype).train(training), reference.double().train(training)
    x = sample(case, batch, size, dtype, frames)
    with torch.set_grad_enabled(gradients):
        x.requires_grad_(gradients)
        found = model(x)
        want = [reference(x.detach().double())[index] for index in out_indices]
    assert_same(found, want, TOLERANCE[dtype])
    assert all(y.dtype == dtype and y.is_contiguous() for y in found)
    if gradients:
        loss_of(found).backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@settings(30)
@given(
    ndim=strategies.sampled_from((2, 3)),
    shape=strategies.lists(strategies.integers(0, 40), min_size=0, max_size=6),
    dtype=strategies.sampled_from((torch.float32, torch.float64, torch.int64, torch.float16)),
)
def test_any_tensor_gives_maps_or_one_sentence(
    ndim: int, shape: list[int], dtype: torch.dtype
) -> None:
    """No error from deep inside PyTorch, whatever comes in."""
    model = FRONTS[ndim](TINY).eval()
    x = torch.zeros(shape, dtype=dtype)
    fits = len(shape) == ndim + 2 and min(shape) > 0 and shape[1] == 3
    fits = fits and min(shape[-2:]) >= 32 and dtype == torch.float32
    with torch.no_grad(), warnings.catch_warnings():
        if fits:
            model(x)
            return
        with pytest.raises(ValueError, match='input') as caught:
            model(x)
    assert str(caught.value).count('\n') == 0


@settings(20)
@given(case=cases(), size=sides, seed=strategies.integers(0, 99))
def test_samples_do_not_see_each_other(case: Case, size: tuple[int, int], seed: int) -> None:
    """In evaluation a batch is its samples, in any order."""
    torch.manual_seed(0)
    model = FRONTS[case.ndim](case.arch, as_tuple=True, **case.options).double().eval()
    randomise(model)
    x = sample(case, 3, size, frames=2)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = model(x)
        assert_same(model(x[order]), [y[order] for y in whole], 1e-9)
        for index in range(3):
            assert_same(model(x[index : index + 1]), [y[index : index + 1] for y in whole], 1e-9)
