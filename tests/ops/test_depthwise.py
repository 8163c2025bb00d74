# SPDX-License-Identifier: Apache-2.0
"""The operator itself, on PyTorch's own operators: what users without a GPU run."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from uniformer_mm.ops import depthwise_conv, dispatch
from uniformer_mm.ops.torch import depthwise as plain

from .checks import Case, check, results

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = (
    ((1, 1, 1, 3), (3, 3)),
    ((2, 9, 7, 20), (5, 5)),
    ((1, 4, 3, 5), (7, 1)),
    ((2, 3, 4, 5, 6), (3, 3, 3)),
    ((1, 2, 6, 3, 9), (5, 5, 5)),
    ((1, 4, 3, 2, 4), (3, 1, 1)),
)
CASES = [
    Case(
        shape,
        kernel,
        dtype,
        parameter_dtype=torch.float64 if dtype is torch.float64 else torch.float32,
        residual=n % 2 == 0,
        bias=n % 3 != 0,
    )
    for n, ((shape, kernel), dtype) in enumerate(itertools.product(SHAPES, DTYPES))
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: Case) -> None:
    check(case, 'cpu', 'pytorch')


@pytest.mark.parametrize('case', [case for case in CASES if case.residual], ids=str)
def test_a_large_map_is_added_by_the_centre_tap(case: Case, monkeypatch) -> None:
    monkeypatch.setattr(plain, 'SMALL', 0)
    check(case, 'cpu', 'pytorch')


@pytest.mark.parametrize('multiplies_bfloat16', [True, False])
def test_both_forms_of_bfloat16_equal_reference(
    multiplies_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, 'cpu_multiplies', lambda _: multiplies_bfloat16)
    for residual in (True, False):
        check(Case((2, 5, 4, 8), (3, 3), torch.bfloat16, residual=residual), 'cpu', 'pytorch')
    check(Case((1, 2, 5, 4, 8), (3, 3, 3), torch.bfloat16), 'cpu', 'pytorch')


@pytest.mark.parametrize(
    'case',
    [
        Case((2, 40, 33, 4), (3, 3)),
        Case((2, 70, 66, 4), (5, 5)),
        Case((1, 3, 40, 33, 4), (3, 3, 3)),
        Case((1, 3, 9, 7, 4), (3, 3, 3)),
        Case((1, 2, 70, 66, 4), (3, 5, 5)),
    ],
    ids=str,
)
def test_weight_gradients_taken_in_pieces_equal_reference(case: Case) -> None:
    check(case, 'cpu', 'pytorch')


@pytest.mark.parametrize('shape', [(0, 4, 5, 8), (2, 0, 5, 8), (0, 2, 4, 5, 8)], ids=str)
def test_empty_maps_have_zero_gradients(shape: tuple) -> None:
    x, weight, bias, _ = Case(shape, (3,) * (len(shape) - 2)).tensors('cpu')
    y = depthwise_conv(x, weight, bias, residual=True)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_repeats_bit_for_bit() -> None:
    case = Case((2, 3, 9, 7, 16), (3, 5, 3))
    first, second = (results(depthwise_conv, case, 'cpu') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize('residual', [True, False])
@pytest.mark.parametrize(
    ('shape', 'kernel'), [((1, 3, 3, 2), (3, 3)), ((1, 2, 2, 2, 2), (3, 3, 3))]
)
def test_second_derivatives_are_right(shape: tuple, kernel: tuple, residual: bool) -> None:
    case = Case(shape, kernel, torch.float64, torch.float64)
    inputs = case.tensors('cpu')[:3]

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return depthwise_conv(*tensors, residual=residual)

    assert torch.autograd.gradgradcheck(call, inputs)
    x, weight, bias = inputs
    assert torch.autograd.gradgradcheck(lambda x: call(x, weight.detach(), bias.detach()), x)


def test_leaves_its_inputs_alone() -> None:
    x, weight, bias, _ = (t.detach() for t in Case((1, 4, 4, 8), (3, 3)).tensors('cpu'))
    before = [t.clone() for t in (x, weight, bias)]
    depthwise_conv(x, weight, bias, residual=True)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, weight, bias), strict=True))


def test_only_wanted_gradients_are_made() -> None:
    x, weight, bias, _ = Case((1, 4, 4, 8), (3, 3)).tensors('cpu')
    y = depthwise_conv(x, weight.detach(), bias.detach())
    assert y.grad_fn.saved_tensors[0] is None, 'a frozen layer keeps its input for nothing'
    y.sum().backward()
    assert x.grad is not None
    y = depthwise_conv(x.detach(), weight, bias.detach())
    y.sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert not depthwise_conv(x, weight, bias).requires_grad


def test_autocast_casts_the_map_and_not_the_parameters() -> None:
    x, weight, bias, _ = Case((1, 4, 4, 8), (3, 3)).tensors('cpu')
    with torch.autocast('cpu', torch.bfloat16):
        y = depthwise_conv(x, weight, bias, residual=True)
        double = depthwise_conv(x.double(), weight.double(), bias.double())
    assert y.dtype is torch.bfloat16
    assert double.dtype is torch.float64
    expected = depthwise_conv(x.bfloat16(), weight, bias, residual=True)
    assert torch.equal(y, expected)
    y.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32


def test_is_a_well_formed_operator() -> None:
    x, weight, bias, grad = Case((2, 3, 4, 8), (3, 3)).tensors('cpu')
    ops = torch.ops.uniformer_mm
    for args in ((x, weight, bias), (x, weight, None)):
        torch.library.opcheck(ops.depthwise_conv.default, (*args, True, 'auto'))
    x, weight = x.detach(), weight.detach()
    torch.library.opcheck(ops.depthwise_conv_input_grad.default, (grad, weight, True, 'auto'))
    torch.library.opcheck(ops.depthwise_conv_weight_grad.default, (grad, x, [3, 3], 'auto'))


class Layer(nn.Module):
    """A depthwise convolution between two element-wise operations."""

    def __init__(self, rank: int, channels: int = 8) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.conv = conv(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sine of the convolution of the sine."""
        conv = self.conv
        return depthwise_conv(x.sin(), conv.weight, conv.bias, residual=True).sin()


@pytest.mark.parametrize('rank', [2, 3])
def test_compiles_without_breaks_and_for_every_size(rank: int) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = Layer(rank)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for size in ((2, 5, 6), (2, 7, 4), (4, 9, 10)):
        x = torch.randn(3, *size[3 - rank :], 8, requires_grad=True)
        grad = torch.randn(x.shape)
        found = torch.autograd.grad(compiled(x), [x, *layer.parameters()], grad)
        expected = torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


def test_inductor_runs_it_under_autocast() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = Layer(2)
    x = torch.randn(2, 5, 6, 8)
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        found = torch.compile(layer, fullgraph=True)(x)
        expected = layer(x)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_ddp_and_fsdp_see_an_ordinary_operator(tmp_path) -> None:
    torch.manual_seed(0)
    layer, x = Layer(2), torch.randn(2, 5, 6, 8)
    layer(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    try:
        nn.parallel.DistributedDataParallel(layer)(x).sum().backward()
        replicated = [parameter.grad for parameter in layer.parameters()]
        sharded = copy.deepcopy(layer)
        sharded.zero_grad()
        mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (1,))
        torch.distributed.fsdp.fully_shard(sharded, mesh=mesh)(x).sum().backward()
        gathered = [parameter.grad.full_tensor() for parameter in sharded.parameters()]
    finally:
        torch.distributed.destroy_process_group()
    for found in (replicated, gathered):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_meta_tensors_give_shapes() -> None:
    x = torch.empty(2, 4, 5, 6, 8, device='meta', dtype=torch.bfloat16)
    weight = torch.empty(8, 1, 3, 3, 3, device='meta')
    y = depthwise_conv(x, weight)
    assert (y.shape, y.dtype, y.device.type) == (x.shape, x.dtype, 'meta')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'x_BSC': torch.zeros(4, 5, 8)}, r'x_BSC has shape \(4, 5, 8\); expected \(B, H, W, C\)'),
        ({'x_BSC': torch.zeros(1, 4, 5, 6)}, r'weight has shape .* expected \(6, 1\) and 2 kernel'),
        ({'weight': torch.zeros(8, 1, 3, 3, 3)}, r'expected \(8, 1\) and 2 kernel sizes'),
        ({'weight': torch.zeros(8, 8, 3, 3)}, r'weight has shape \(8, 8, 3, 3\)'),
        ({'weight': torch.zeros(8, 1, 3, 4)}, r'kernel \(3, 4\); expected odd sizes'),
        ({'bias': torch.zeros(7)}, r'bias has shape \(7,\); expected \(8,\)'),
        ({'x_BSC': torch.zeros(1, 4, 5, 8).long()}, r'dtype torch.int64; expected a floating'),
        ({'weight': torch.zeros(8, 1, 3, 3, device='meta')}, r'weight is on meta, x_BSC on cpu'),
        ({'backend': 'cudnn'}, r"backend='cudnn' is not known; use one of \['auto', 'triton'"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    arguments = {
        'x_BSC': torch.zeros(1, 4, 5, 8),
        'weight': torch.zeros(8, 1, 3, 3),
        'bias': torch.zeros(8),
        'backend': 'auto',
    }
    arguments |= change
    with pytest.raises(ValueError, match=message):
        depthwise_conv(
            arguments.pop('x_BSC'), arguments.pop('weight'), arguments.pop('bias'), **arguments
        )


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, 'triton_is_interpreted', lambda: False)
    x, weight = torch.zeros(1, 4, 5, 8), torch.zeros(8, 1, 3, 3)
    dispatch.resolve.cache_clear()
    with pytest.raises(ValueError, match=r"backend='triton' cannot run: "):
        depthwise_conv(x, weight, backend='triton')
    assert depthwise_conv(x, weight, backend='auto').shape == x.shape
    cpu = torch.device('cpu')
    monkeypatch.setattr(dispatch.importlib.util, 'find_spec', lambda _: None)
    dispatch._why_not_triton.cache_clear()
    reason = dispatch.why_not_triton_depthwise(cpu, torch.float32, (3, 3))
    assert reason == 'the package triton is not installed'
    monkeypatch.setattr(torch, '__version__', '2.1.2+cpu')
    dispatch._why_not_triton.cache_clear()
    reason = dispatch.why_not_triton_depthwise(cpu, torch.float32, (3, 3))
    dispatch._why_not_triton.cache_clear()
    assert reason == 'torch 2.1.2+cpu is older than 2.4'


def test_works_without_triton() -> None:
    code = (
        'import sys; sys.modules["triton"] = None\n'
        'import torch, uniformer_mm\n'
        'from uniformer_mm.ops import depthwise_conv\n'
        'x, weight = torch.ones(1, 2, 3, 4), torch.ones(4, 1, 3, 3, requires_grad=True)\n'
        'depthwise_conv(x, weight).sum().backward()\n'
        'assert "uniformer_mm.ops.triton.depthwise" not in sys.modules\n'
        'print(weight.grad.sum().item())\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Of 9 taps on 6 positions in 2 rows of 3, taps in reach: (1 + 2 + 1) x (2 + 3 + 2).
    assert float(done.stdout) == 4 * 4 * 7
