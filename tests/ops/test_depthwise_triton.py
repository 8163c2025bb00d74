# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels, in the interpreter on small odd cases and on a GPU on real ones too."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm.ops import depthwise_conv

from .checks import Case, assert_no_worse, check, results
from .conftest import needs_gpu, needs_kernels

pytestmark = needs_kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FLOAT32, BFLOAT16, FLOAT16 = DTYPES
# Sizes below a tile, odd sizes, channels that fill no tile, fewer frames than taps.
CASES = [
    Case((1, 1, 1, 3), (3, 3)),
    Case((2, 5, 7, 8), (3, 3), bias=False),
    Case((2, 5, 7, 8), (3, 3), BFLOAT16),
    Case((2, 3, 4, 3), (3, 3), FLOAT16, residual=False),
    Case((1, 6, 5, 20), (5, 5), residual=False),
    Case((1, 3, 5, 4), (5, 5), BFLOAT16, parameter_dtype=BFLOAT16),
    Case((1, 4, 3, 5), (3, 1), FLOAT16, parameter_dtype=FLOAT16),
    Case((2, 3, 4, 5, 6), (3, 3, 3)),
    Case((1, 3, 3, 4, 6), (3, 3, 3), BFLOAT16, residual=False, bias=False),
    Case((1, 2, 5, 3, 9), (5, 5, 5), residual=False),
    Case((1, 4, 3, 2, 4), (3, 1, 1), FLOAT16),
    Case((1, 3, 5, 3), (9, 9)),
    Case((1, 2, 3, 4, 2), (7, 7, 7), BFLOAT16, residual=False),
]
GPU_CASES = [
    Case((2, 56, 56, 64), (5, 5), BFLOAT16, residual=False),
    Case((2, 28, 28, 128), (3, 3), FLOAT16),
    Case((1, 25, 40, 512), (3, 3), FLOAT32),
    Case((1, 200, 320, 64), (5, 5), BFLOAT16, residual=False),
    Case((1, 33, 49, 448), (7, 7), BFLOAT16),
    Case((2, 8, 56, 56, 64), (5, 5, 5), BFLOAT16, residual=False),
    Case((2, 8, 28, 28, 128), (5, 5, 5), FLOAT32, residual=False),
    Case((2, 8, 14, 14, 320), (3, 3, 3), BFLOAT16),
    Case((2, 8, 7, 7, 512), (3, 3, 3), FLOAT16),
]


@pytest.fixture
def small_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small patches and programs: several programs, and edges in all of them, in a small map."""
    from uniformer_mm.ops.triton import depthwise as triton_depthwise
    from uniformer_mm.ops.triton import tiles

    def tile_for(operation: str, device: torch.device, kernel: tuple, *_: object) -> tiles.Tile:
        return tiles.Tile(1, 2, 4, 1) if max(kernel) > 3 else tiles.Tile(2, 3, 2, 1)

    monkeypatch.setattr(triton_depthwise, 'tile_for', tile_for)


@pytest.fixture(autouse=True)
def _exact_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: Case, device: str, small_tile: None, poisoned: list) -> None:
    check(case, device, 'triton')


@pytest.mark.parametrize(
    'case',
    [
        Case((1, 3, 8, 5), (3, 3), BFLOAT16),
        Case((1, 2, 3, 3), (5, 5), FLOAT16, residual=False),
    ],
    ids=str,
)
def test_tiles_of_the_table_equal_reference(case: Case, device: str, poisoned: list) -> None:
    check(case, device, 'triton')


@pytest.mark.parametrize('copy', ['x', 'y'])
@pytest.mark.parametrize('given', [False, True], ids=['weight', 'taps'])
def test_a_copy_in_another_dtype_comes_along(
    copy: str, given: bool, device: str, small_tile: None, poisoned: list
) -> None:
    """The form that networks use under autocast, also with taps that are transposed already."""
    from uniformer_mm.ops.triton import depthwise as triton_depthwise

    case = Case((2, 3, 5, 7, 6), (3, 3, 3))
    with torch.no_grad():
        x, weight, bias, grad = case.tensors(device)
        taps = {'taps_KC': weight.flatten(1).t().contiguous()} if given else {}
        y, other = triton_depthwise.forward_and_copy(x, weight, bias, copy, BFLOAT16, **taps)
        assert torch.equal(other, (x if copy == 'x' else y).to(BFLOAT16))
        x_grad = triton_depthwise.input_grad(grad, weight, True, **taps)
    assert_no_worse(case, device, [y, x_grad])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize('case', GPU_CASES, ids=str)
def test_real_shapes_equal_reference(case: Case) -> None:
    check(case, 'cuda', 'triton')


def test_the_check_notices_a_wrong_tap(
    device: str, small_tile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniformer_mm.ops.triton import depthwise as triton_depthwise

    right = triton_depthwise.input_grad
    monkeypatch.setattr(
        triton_depthwise, 'input_grad', lambda grad, w, residual: right(grad, w.flip(-1), residual)
    )
    with pytest.raises(AssertionError, match='input gradient is off'):
        check(Case((1, 3, 4, 4), (1, 3)), device, 'triton')


def test_several_parts_of_the_weight_gradient(
    device: str, small_tile: None, poisoned: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniformer_mm.ops.triton import depthwise as triton_depthwise

    monkeypatch.setattr(triton_depthwise, 'processors', lambda _: 4)
    case = Case((2, 3, 5, 7, 6), (3, 1, 3))
    check(case, device, 'triton')
    parts = max(len(buffer) for buffer in poisoned) // ((3 * 3 + 1) * 6)
    assert parts >= 2, 'one part only'


@pytest.mark.parametrize('dtype', DTYPES[:2], ids=str)
def test_repeats_bit_for_bit(dtype: torch.dtype, device: str, small_tile: None) -> None:
    case = Case((2, 2, 5, 4, 6), (3, 1, 3), dtype)
    first, second = (results(depthwise_conv, case, device, backend='triton') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_copies_strided_maps_and_gradients(device: str, small_tile: None) -> None:
    x, weight, bias, _ = Case((2, 3, 4, 5), (3, 1)).tensors(device)
    strided = x.detach().movedim(-1, 1).contiguous().movedim(1, -1).requires_grad_()
    assert not strided.is_contiguous()
    y = depthwise_conv(strided, weight, bias, backend='triton')
    expected = depthwise_conv(x, weight, bias, backend='triton')
    assert torch.equal(y, expected)
    assert y.is_contiguous()
    y.sum().backward()
    expected.sum().backward()
    assert torch.equal(strided.grad, x.grad)


@pytest.mark.parametrize('shape', [(0, 4, 5, 8), (2, 0, 5, 8)], ids=str)
def test_empty_maps_have_zero_gradients(shape: tuple, device: str, small_tile: None) -> None:
    x, weight, bias, _ = Case(shape, (3, 3)).tensors(device)
    y = depthwise_conv(x, weight, bias, backend='triton')
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_is_a_well_formed_operator(device: str, small_tile: None) -> None:
    x, weight, bias, grad = Case((1, 2, 3, 4), (1, 3)).tensors(device)
    ops = torch.ops.uniformer_mm
    for args in ((x, weight, bias), (x, weight, None)):
        torch.library.opcheck(ops.depthwise_conv.default, (*args, True, 'triton'))
    x, weight = x.detach(), weight.detach()
    torch.library.opcheck(ops.depthwise_conv_input_grad.default, (grad, weight, True, 'triton'))
    torch.library.opcheck(ops.depthwise_conv_weight_grad.default, (grad, x, [1, 3], 'triton'))


def test_auto_takes_the_kernels_and_says_why_not(device: str) -> None:
    from uniformer_mm.ops import dispatch

    dispatch.resolve.cache_clear()
    found = dispatch.resolve('depthwise_conv', 'auto', torch.device(device), torch.float32, (3, 3))
    assert found.__name__.endswith('triton.depthwise')
    x = torch.zeros(1, 2, 2, 4, dtype=torch.float64, device=device)
    weight = torch.zeros(4, 1, 3, 3, dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match=r"backend='triton' cannot run: dtype torch.float64"):
        depthwise_conv(x, weight, backend='triton')
    assert depthwise_conv(x, weight).dtype is torch.float64
    wide = torch.zeros(4, 1, 11, 11, device=device)
    with pytest.raises(ValueError, match=r'kernel \(11, 11\) has more than 81 taps'):
        depthwise_conv(x.float(), wide, backend='triton')


@pytest.mark.parametrize('operation', ['forward', 'weight_grad'])
def test_tuning_keeps_the_fastest_tile(
    operation: str, device: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniformer_mm.ops.triton import tiles, tuning

    monkeypatch.setenv('UNIFORMER_MM_CACHE', str(tmp_path))
    fast, slow = tiles.Tile(1, 1, 2, 1), tiles.Tile(2, 1, 2, 1)
    monkeypatch.setattr(tuning, 'default_tile', lambda *_: slow)
    monkeypatch.setattr(tuning, 'candidates', lambda *_: [slow, fast])
    clock = iter((3.0, 1.0))

    def measure(call) -> float:
        call()
        return next(clock)

    kwargs = {'device': device, 'measure': measure}
    times = tuning.tune(operation, (1, 2, 3, 4), (1, 3), torch.float32, **kwargs)
    assert list(times.items()) == [(fast, 1.0), (slow, 3.0)]
    name = torch.cuda.get_device_name() if device == 'cuda' else device
    assert tiles.load_tuned(name) == {f'{operation} 1x3 4 float32': fast}


def test_tuning_notices_a_wrong_tile(
    device: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniformer_mm.ops.triton import depthwise as triton_depthwise
    from uniformer_mm.ops.triton import tiles, tuning

    monkeypatch.setenv('UNIFORMER_MM_CACHE', str(tmp_path))
    right = triton_depthwise.forward
    slow = tiles.Tile(2, 1, 2, 1)
    wrong = tiles.Tile(1, 1, 2, 1)

    def forward(x, weight, bias, residual, tile):
        return right(x, weight, bias, residual and tile != wrong, tile)

    monkeypatch.setattr(triton_depthwise, 'forward', forward)
    monkeypatch.setattr(tuning, 'default_tile', lambda *_: slow)
    monkeypatch.setattr(tuning, 'candidates', lambda *_: [wrong])
    kwargs = {'device': device, 'measure': lambda call: 1.0}
    assert tuning.tune('forward', (1, 2, 3, 4), (1, 3), torch.float32, **kwargs) == {slow: 1.0}


def test_tuning_candidates_fit_in_registers() -> None:
    from uniformer_mm.ops.triton import tuning

    for kernel in ((3, 3), (5, 5), (3, 3, 3), (5, 5, 5)):
        for operation in ('forward', 'weight_grad'):
            assert len(tuning.candidates(operation, kernel)) >= 5
    with pytest.raises(ValueError, match="operation='backward' is not known"):
        tuning.tune('backward', (1, 2, 3, 4), (3, 3), torch.float32, device='cpu')
