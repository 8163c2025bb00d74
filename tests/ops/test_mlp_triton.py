# SPDX-License-Identifier: Apache-2.0
"""The MLP's Triton kernels, in the interpreter on small odd cases and on a GPU on real ones too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from uniformer_mm.ops.mlp import implementation

from .conftest import needs_gpu, needs_kernels
from .mlp_checks import MlpCase, check_mlp, check_mlp_add, mlp, mlp_results

pytestmark = needs_kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FLOAT32, BFLOAT16, FLOAT16 = DTYPES
# One row, rows that fill no tile, several tiles; channels that fill no tile, unequal ones; a chunk
# of hidden units that is not full.
CASES = [
    MlpCase((1, 3), 5, 2, FLOAT32),
    MlpCase((1, 8), 16, 8, BFLOAT16),
    MlpCase((3, 13, 16), 32, 16, FLOAT32),
    MlpCase((2, 3, 11, 20), 40, 24, FLOAT32),
    MlpCase((2, 3, 11, 20), 40, 24, BFLOAT16),
    MlpCase((2, 3, 11, 20), 40, 24, FLOAT16),
    MlpCase((1, 2, 3, 5, 56), 168, 56, BFLOAT16),
    MlpCase((33, 128), 48, 128, FLOAT16),
]
# The maps of UniFormer-S, of the light archs and of B, in sizes that the reference can hold.
GPU_CASES = [
    MlpCase((2, 8, 56, 56, 64), 256, 64, BFLOAT16),
    MlpCase((2, 8, 56, 56, 64), 256, 64, FLOAT16),
    MlpCase((1, 56, 57, 64), 256, 64, FLOAT32),
    MlpCase((2, 8, 28, 28, 128), 512, 128, BFLOAT16),
    MlpCase((1, 28, 29, 128), 512, 128, FLOAT32),
    MlpCase((1, 200, 320, 64), 256, 64, BFLOAT16),
    MlpCase((5, 55, 56), 168, 56, BFLOAT16),
    MlpCase((5, 55, 112), 336, 112, BFLOAT16),
    MlpCase((7, 76), 228, 76, FLOAT16),
    MlpCase((300, 32), 128, 32, BFLOAT16),
]


@pytest.fixture
def small_tile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small programs: several of them, several chunks, several parts, in a small map."""
    from uniformer_mm.ops.triton import mlp as triton_mlp
    from uniformer_mm.ops.triton import mlp_tiles

    tile = mlp_tiles.MlpTile(16, 16, 1, 1, 8)
    monkeypatch.setattr(triton_mlp, 'mlp_tile', lambda *_: tile)
    triton_mlp._divide.cache_clear()
    yield
    triton_mlp._divide.cache_clear()


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: MlpCase, device: str, small_tile: None, poisoned: list) -> None:
    check_mlp(case, device, 'triton')


@pytest.mark.parametrize(
    'case',
    [MlpCase((130, 8), 72, 8, BFLOAT16), MlpCase((2, 70), 80, 70), MlpCase((40, 8), 40, 8)],
    ids=str,
)
def test_tiles_of_the_table_equal_reference(case: MlpCase, device: str, poisoned: list) -> None:
    check_mlp(case, device, 'triton')


@pytest.mark.parametrize(
    ('dtype', 'stream'),
    [(BFLOAT16, FLOAT32), (FLOAT16, FLOAT32), (FLOAT32, FLOAT32), (BFLOAT16, BFLOAT16)],
    ids=str,
)
def test_sum_with_a_stream_equals_reference(
    dtype: torch.dtype, stream: torch.dtype, device: str, small_tile: None, poisoned: list
) -> None:
    check_mlp_add(MlpCase((3, 7, 20), 40, 24, dtype), stream, device, 'triton')


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize('case', GPU_CASES, ids=str)
def test_real_shapes_equal_reference(case: MlpCase) -> None:
    check_mlp(case, 'cuda', 'triton')
    check_mlp_add(case, FLOAT32, 'cuda', 'triton')


@pytest.mark.gpu
@needs_gpu
def test_offsets_beyond_32_bits() -> None:
    """The last rows of a map of more than 2^31 elements, against the same rows alone."""
    case = MlpCase((129, 16), 32, 16, BFLOAT16)
    tail, *parameters, _ = (t.detach() for t in case.tensors('cuda'))
    x = torch.zeros(2**27 + 129, 16, dtype=BFLOAT16, device='cuda')
    x[-129:] = tail
    kernels = implementation(x, parameters[0], parameters[2], 'triton')
    assert torch.equal(kernels.forward(x, *parameters)[-129:], kernels.forward(tail, *parameters))
    grad = kernels.input_grad(x, x, *parameters[:3])[-129:]
    assert torch.equal(grad, kernels.input_grad(tail, tail, *parameters[:3]))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_gelu_over_its_whole_range(dtype: torch.dtype, device: str, small_tile: None) -> None:
    """One channel, matrices of one: the GELU and its derivative at every size of its argument."""
    x = torch.linspace(-14, 14, 561, device=device).to(dtype)[:, None].requires_grad_()
    one, zero = (torch.full((1,), value, dtype=dtype, device=device) for value in (1, 0))
    y = mlp(x, one[None], zero, one[None], zero, backend='triton')
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    exact = x.detach().double().requires_grad_()
    truth = torch.nn.functional.gelu(exact)
    (truth_grad,) = torch.autograd.grad(truth, exact, torch.ones_like(truth))
    # Roundings of the hidden value and of the result; the approximation itself is off by 1e-7.
    eps = torch.finfo(dtype).eps
    for found, expected in ((y, truth), (grad, truth_grad)):
        error = (found.double() - expected).abs()
        assert (error <= eps * expected.abs() + 4e-7 * (1 + exact.abs())).all(), error.max()


@pytest.mark.parametrize(
    ('kernel', 'broken', 'message'),
    [
        ('forward', lambda right, x, *rest: right(x.flip(0), *rest), 'output is off'),
        ('input_grad', lambda right, g, *rest: right(g.flip(0), *rest), 'input gradient is off'),
        ('weight_grad', lambda right, g, *rest: right(g.flip(0), *rest), 'w_HC is off'),
    ],
)
def test_the_check_notices_a_wrong_kernel(
    kernel: str,
    broken,
    message: str,
    device: str,
    small_tile: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from uniformer_mm.ops.triton import mlp as triton_mlp

    right = getattr(triton_mlp, kernel)
    monkeypatch.setattr(triton_mlp, kernel, lambda *arguments: broken(right, *arguments))
    with pytest.raises(AssertionError, match=message):
        check_mlp(MlpCase((5, 8), 16, 8), device, 'triton')


def test_several_parts_of_the_weight_gradient(
    device: str, small_tile: None, poisoned: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniformer_mm.ops.triton import mlp as triton_mlp

    monkeypatch.setattr(triton_mlp, 'processors', lambda _: 2)
    case = MlpCase((83, 8), 40, 8)
    check_mlp(case, device, 'triton')
    size = 40 * (8 + 8 + 1)
    assert max(len(buffer) for buffer in poisoned) >= 3 * size, 'fewer than three parts'


def test_the_gradient_of_the_last_bias_can_be_left_out(
    device: str, small_tile: None, poisoned: list
) -> None:
    x, *parameters, grad = (t.detach() for t in MlpCase((21, 8), 40, 8).tensors(device))
    weight_grad = implementation(x, parameters[0], parameters[2], 'triton').weight_grad
    every = weight_grad(grad, x, *parameters[:3], True)
    fewer = weight_grad(grad, x, *parameters[:3], False)
    assert all(torch.equal(a, b) for a, b in zip(every[:3], fewer[:3], strict=True))
    assert fewer[3].shape == (0,)
    assert {result.dtype for result in every} == {torch.float32}


@pytest.mark.parametrize('dtype', DTYPES[:2], ids=str)
def test_repeats_bit_for_bit(dtype: torch.dtype, device: str, small_tile: None) -> None:
    case = MlpCase((2, 21, 8), 40, 8, dtype)
    first, second = (mlp_results(mlp, case, device, backend='triton') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_copies_strided_maps_and_gradients(device: str, small_tile: None) -> None:
    x, *parameters, grad = MlpCase((5, 7, 8), 16, 8).tensors(device)
    parameters = [parameter.detach() for parameter in parameters]
    strided = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    strided_parameters = [
        parameter.t().contiguous().t()
        if parameter.ndim == 2
        else parameter.repeat_interleave(2)[::2]
        for parameter in parameters
    ]
    assert not strided.is_contiguous()
    y = mlp(strided, *strided_parameters, backend='triton')
    expected = mlp(x, *parameters, backend='triton')
    assert torch.equal(y, expected)
    assert y.is_contiguous()
    y.backward(grad.transpose(0, 1).contiguous().transpose(0, 1))
    expected.backward(grad)
    assert torch.equal(strided.grad, x.grad)


@pytest.mark.parametrize('shape', [(0, 8), (2, 0, 5, 8)], ids=str)
def test_empty_maps_have_zero_gradients(
    shape: tuple, device: str, small_tile: None, poisoned: list
) -> None:
    x, *parameters, _ = MlpCase(shape, 16, 4).tensors(device)
    y = mlp(x, *parameters, backend='triton')
    y.backward(torch.ones_like(y))
    assert y.shape == (*shape[:-1], 4)
    assert x.grad.shape == shape
    assert not any(parameter.grad.any() for parameter in parameters)


def test_a_second_backward_pass_over_the_same_graph(device: str, small_tile: None) -> None:
    x, *parameters, grad = MlpCase((5, 8), 16, 8).tensors(device)
    y = mlp(x, *parameters, backend='triton')
    first = torch.autograd.grad(y, (x, *parameters), grad, retain_graph=True)
    second = torch.autograd.grad(y, (x, *parameters), grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_auto_takes_the_kernels_and_says_why_not(device: str) -> None:
    x, w_HC, _, w_OH, *_ = (t.detach() for t in MlpCase((5, 8), 16, 8).tensors(device))
    assert implementation(x, w_HC, w_OH).__name__.endswith('triton.mlp')
    with pytest.raises(ValueError, match=r"backend='triton' cannot run: dtype torch.float64"):
        implementation(x, w_HC.double(), w_OH, 'triton')
    wide = torch.zeros(16, 129, device=device)
    with pytest.raises(ValueError, match=r'129 channels are more than 128; use backend'):
        implementation(x, wide, w_OH, 'triton')
    assert implementation(x, wide, w_OH).__name__.endswith('torch.mlp')
