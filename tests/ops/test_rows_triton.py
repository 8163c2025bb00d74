# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels between matrix multiplications, in the interpreter and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from uniformer_mm.ops import rows

from .conftest import needs_gpu, needs_kernels
from .rows_checks import (
    RowsCase,
    by_rows,
    check_branch,
    check_gelu_grad,
    check_norm_linear,
    operations,
)

pytestmark = needs_kernels

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
# Rows that fill no tile, several tiles and parts; channels that fill no tile; more outputs than a
# part of the folded matrix has.
CASES = [
    RowsCase(9, 5, 2),
    RowsCase(37, 20, 5, BFLOAT16),
    RowsCase(75, 72, 300, FLOAT32, samples=2),
    RowsCase(150, 8, 16, FLOAT16, samples=2),
    RowsCase(70, 64, 24, BFLOAT16),
]
GPU_CASES = [
    RowsCase(8 * 56 * 56, 64, 64, BFLOAT16, samples=4),
    RowsCase(8 * 28 * 28, 128, 512, FLOAT16, samples=4),
    RowsCase(8 * 14 * 14, 320, 960, BFLOAT16, samples=4),
    RowsCase(49, 512, 2048, FLOAT32, samples=3),
    RowsCase(1001, 76, 228, BFLOAT16),
]


@pytest.fixture(params=[1, 1000], ids=['one part', 'many parts'])
def parts(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Programs that sum over rows."""
    from uniformer_mm.ops.triton import grid

    monkeypatch.setattr(grid, 'processors', lambda _: request.param)
    monkeypatch.setattr(grid, 'PROGRAMS_PER_PROCESSOR', 1)
    monkeypatch.setattr(grid, 'TILE', 256)
    caches = grid.divide, grid.whole_rows
    for cache in caches:
        cache.cache_clear()
    yield request.param
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize('axis', [0, 1], ids=['batch', 'layer'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_norms_equal_reference(
    case: RowsCase, axis: int, device: str, parts: int, poisoned: list
) -> None:
    check_norm_linear(case, device, axis, 'triton')


@pytest.mark.parametrize('case', [RowsCase(1, 3, 2), *CASES], ids=str)
def test_gelu_gradient_equals_reference(
    case: RowsCase, device: str, parts: int, poisoned: list
) -> None:
    check_gelu_grad(case, device, 'triton')


@pytest.mark.parametrize('has_factors', [True, False])
@pytest.mark.parametrize('case', [RowsCase(1, 3, 2), *CASES], ids=str)
def test_residual_sum_equals_reference(
    case: RowsCase, has_factors: bool, device: str, parts: int, poisoned: list
) -> None:
    check_branch(case, device, 'triton', has_factors=has_factors)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize('case', GPU_CASES, ids=str)
def test_real_shapes_equal_reference(case: RowsCase) -> None:
    for axis in (0, 1):
        check_norm_linear(case, 'cuda', axis, 'triton')
    check_gelu_grad(case, 'cuda', 'triton')
    check_branch(case, 'cuda', 'triton', has_factors=True)


@pytest.mark.parametrize(
    ('momentum', 'counts', 'dtype'),
    [
        (0.1, True, FLOAT32),
        (None, True, FLOAT32),
        (1, True, FLOAT32),
        (0.3, False, FLOAT32),
        (0.2, True, BFLOAT16),
    ],
)
def test_running_statistics_are_updated_as_pytorch_does(
    momentum: float | None, counts: bool, dtype: torch.dtype, device: str, parts: int
) -> None:
    x, _ = RowsCase(60, 40, 1).maps(device)
    norm = torch.nn.BatchNorm1d(40, momentum=momentum).to(device)
    if not counts:
        norm.num_batches_tracked = None
    buffers = [norm.running_mean.to(dtype), norm.running_var.to(dtype)]
    count = norm.num_batches_tracked.clone() if counts else None
    for turn in range(2):
        batch = x + turn
        norm(batch)
        before = buffers[0]._version
        running = rows.Running(*buffers, count, momentum)
        operations.batch_standardise(batch, norm.eps, FLOAT32, running, backend='triton')
        assert buffers[0]._version > before
    tolerance = {'rtol': 1e-5, 'atol': 1e-6} if dtype is FLOAT32 else {'rtol': 0.02, 'atol': 0.02}
    for found, expected in zip(buffers, (norm.running_mean, norm.running_var), strict=True):
        torch.testing.assert_close(found.float(), expected, **tolerance)
    if counts:
        assert torch.equal(count, norm.num_batches_tracked)


def test_an_integer_momentum_compiles_no_kernel_of_its_own(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton would take 1 for a constant, and later norms would find that kernel."""
    from uniformer_mm.ops.triton import norm

    seen = []
    launch = norm.join_moments_kernel
    monkeypatch.setattr(
        norm, 'join_moments_kernel', lambda *args: seen.append(args[2]) or launch(*args)
    )
    x, _ = RowsCase(6, 8, 1).maps(device)
    running = rows.Running(torch.zeros(8, device=device), torch.ones(8, device=device), None, 1)
    operations.batch_standardise(x, 0, FLOAT32, running, backend='triton')
    ((*_, eps, momentum),) = seen
    assert (type(eps), type(momentum)) == (float, float)
    torch.testing.assert_close(running.mean, x.mean(0))


def test_variance_of_values_far_from_zero(device: str, parts: int) -> None:
    """A sum of squares would lose all digits here."""
    x = 64 + RowsCase(300, 8, 1).maps(device)[1] / 16
    _, rstd = operations.batch_standardise(x, 0.0, FLOAT32, None, backend='triton')
    expected = x.double().var(0, correction=0).rsqrt()
    torch.testing.assert_close(rstd.double(), expected, rtol=1e-4, atol=0)


def test_running_norm_is_folded(device: str) -> None:
    case = RowsCase(1, 20, 24)
    (_, gamma, beta, weight, bias), _ = case.norm_linear(device)
    norm = torch.nn.BatchNorm1d(20).double().to(device).eval()
    with torch.no_grad():
        for source, target in ((gamma, norm.weight), (beta, norm.bias), (beta, norm.running_mean)):
            target.copy_(source)
        norm.running_var.uniform_(0.5, 2)
        running = rows.RunningNorm(norm.running_mean.float(), norm.running_var.float(), norm.eps)
        folded = operations.fold(weight, bias, gamma, beta, FLOAT32, running, backend='triton')
        x = case.tensor(3, 5, 20, device=device)
        expected = norm(x.double()) @ weight.double().t() + bias.double()
        found = x.double() @ folded[0].double().t() + folded[1].double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [FLOAT32, BFLOAT16], ids=str)
def test_all_weights_of_a_block_in_one_launch(
    dtype: torch.dtype, device: str, poisoned: list
) -> None:
    """Cast, scaled, normalised with running statistics; more of them than one launch takes."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw).to(device)

    running = rows.RunningNorm(random(17), random(17).abs(), 1e-3)
    matrices = [
        rows.Matrix(random(5, 300), random(5), random(300), random(300)),
        # With strides, which are read as if there were none.
        rows.Matrix(random(8, 70).t(), random(70)),
        rows.Matrix(random(9, 17, 1, 1), random(9), random(17), random(17), running),
        rows.Matrix(random(3, 4), random(3)),
        rows.Matrix(random(6, 2), random(6), random(2), random(2)),
    ]
    convs = [random(70, 1, 5, 5), random(3, 1, 3, 3, 3), random(1, 1, 1, 1)]
    found, taps = rows.implementation(convs[0], 'triton').fold_all(matrices, convs, dtype)
    plain = rows.implementation(convs[0], 'pytorch')
    for matrix, pair in zip(matrices, found, strict=True):
        *tensors, statistics = matrix
        wide = (None if tensor is None else tensor.double().squeeze() for tensor in tensors)
        exact = plain.fold(*wide, torch.float64, statistics)
        for one, truth in zip(pair, exact, strict=True):
            assert one.dtype is dtype
            tolerance = 2 * torch.finfo(dtype).eps * truth.abs().max().item()
            torch.testing.assert_close(one.double(), truth, rtol=0, atol=tolerance)
    for weight, transposed in zip(convs, taps, strict=True):
        assert transposed.is_contiguous()
        assert torch.equal(transposed, weight.flatten(1).t())


def test_mixed_dtypes_of_the_stream_and_the_branch(device: str) -> None:
    x, grad = RowsCase(40, 24, 1).maps(device)
    xhat, rstd = operations.layer_standardise(x, 1e-6, BFLOAT16, backend='triton')
    exact, _ = operations.layer_standardise(x.double(), 1e-6, torch.float64, backend='pytorch')
    assert xhat.dtype is BFLOAT16
    assert (xhat.double() - exact).abs().max() <= 2**-8 * exact.abs().max()
    inputs = grad.bfloat16(), xhat, rstd
    found = operations.layer_standardise_grad(*inputs, x, FLOAT32, backend='triton')
    wide = (tensor.double() for tensor in inputs)
    exact = operations.layer_standardise_grad(*wide, x.double(), torch.float64, backend='pytorch')
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    alone = operations.layer_standardise_grad(*inputs, None, FLOAT32, backend='triton')
    torch.testing.assert_close((found - x), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('axis', [0, 1], ids=['batch', 'layer'])
def test_repeats_bit_for_bit(axis: int, device: str, parts: int) -> None:
    case = RowsCase(70, 24, 40, BFLOAT16)
    first, second = (by_rows(case, device, axis, 'triton') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_rows(device: str, poisoned: list) -> None:
    x = torch.zeros(0, 24, device=device)
    options = {'backend': 'triton'}
    assert operations.layer_standardise(x, 1e-6, BFLOAT16, **options)[0].shape == x.shape
    assert operations.batch_standardise(x, 1e-6, BFLOAT16, None, **options)[0].shape == x.shape
    assert operations.add_branch(x, x, torch.zeros(0, device=device), **options)[0].shape == x.shape
    sums = (
        operations.column_sum(x, **options),
        operations.gelu_grad(x, x, **options)[2],
        operations.branch_grad(x, None, BFLOAT16, **options)[1],
    )
    for total in sums:
        assert torch.equal(total, torch.zeros(24, device=device))


def test_strided_maps_are_copied(device: str) -> None:
    x, grad = RowsCase(40, 24, 1).maps(device)
    wide = torch.stack([x, grad], 1)[:, 0]
    assert not wide.is_contiguous()
    for function in (
        operations.column_sum,
        lambda t, **k: operations.layer_standardise(t, 0.1, FLOAT32, **k)[0],
    ):
        assert torch.equal(function(wide, backend='triton'), function(x, backend='triton'))


def test_the_check_notices_a_wrong_sum(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from uniformer_mm.ops.triton import rows as triton_rows

    right = triton_rows.fold_grad

    def wrong(*args):
        weight_grad, affine_grad = right(*args)
        return weight_grad, affine_grad.flip(0)

    monkeypatch.setattr(triton_rows, 'fold_grad', wrong)
    with pytest.raises(AssertionError, match='input grad is off'):
        check_norm_linear(RowsCase(40, 8, 8), device, 0, 'triton')
