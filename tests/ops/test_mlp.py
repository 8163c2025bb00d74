# SPDX-License-Identifier: Apache-2.0
"""The operator itself, on the framework's own operators: what users without a GPU run."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

from uniformer_mm.ops import dispatch, mlp, mlp_add

from .mlp_checks import MlpCase, check_mlp, check_mlp_add, exact_results, framework, mlp_results

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = (((1, 3), 5, 2), ((2, 3, 7, 20), 48, 20), ((2, 2, 3, 2, 9), 36, 130))
CASES = [MlpCase(*shape, dtype) for shape in SHAPES for dtype in DTYPES]
SMALL = MlpCase((2, 3, 8), 16, 8)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: MlpCase) -> None:
    check_mlp(case, 'cpu', 'framework')


@pytest.mark.parametrize('stream', DTYPES[:3], ids=str)
@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
def test_sum_with_a_stream_equals_reference(dtype: torch.dtype, stream: torch.dtype) -> None:
    check_mlp_add(MlpCase((2, 3, 7, 20), 48, 24, dtype), stream, 'cpu', 'framework')


def test_the_parts_equal_the_operator() -> None:
    """What whole layers call without autograd."""
    case = MlpCase((2, 3, 7, 20), 48, 24)
    x, w_HC, b_H, w_OH, b_O, grad = (t.detach() for t in case.tensors('cpu'))
    ops = torch.ops.uniformer_mm
    y = ops.mlp(x, w_HC, b_H, w_OH, b_O, 'framework')
    x_grad = ops.mlp_input_grad(grad, x, w_HC, b_H, w_OH, 'framework')
    grads = ops.mlp_weight_grad(grad, x, w_HC, b_H, w_OH, True, 'framework')
    for found, exact in zip((y, x_grad, *grads), exact_results(case, 'cpu'), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)
    *_, empty = ops.mlp_weight_grad(grad, x, w_HC, b_H, w_OH, False, 'framework')
    assert empty.shape == (0,)


def test_keeps_the_hidden_map_once() -> None:
    x, *parameters, _ = MlpCase((2, 3, 8), 32, 8).tensors('cpu')
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        mlp(x, *parameters)
    assert kept.count((2, 3, 32)) == 1


@pytest.mark.parametrize('shape', [(0, 8), (2, 0, 5, 8)], ids=str)
def test_empty_maps_have_zero_gradients(shape: tuple) -> None:
    x, *parameters, _ = MlpCase(shape, 16, 4).tensors('cpu')
    y = mlp(x, *parameters)
    y.sum().backward()
    assert y.shape == (*shape[:-1], 4)
    assert x.grad.shape == shape
    assert not any(parameter.grad.any() for parameter in parameters)


def test_only_wanted_gradients_are_made() -> None:
    x, *parameters, _ = SMALL.tensors('cpu')
    for wanted in range(5):
        leaves = [leaf if n == wanted else leaf.detach() for n, leaf in enumerate((x, *parameters))]
        mlp(*leaves).sum().backward()
        assert leaves[wanted].grad is not None
    with torch.no_grad():
        assert not mlp(x, *parameters).requires_grad


def test_a_second_backward_pass_over_the_same_graph() -> None:
    x, *parameters, grad = SMALL.tensors('cpu')
    y = mlp(x, *parameters)
    first = torch.autograd.grad(y, (x, *parameters), grad, retain_graph=True)
    second = torch.autograd.grad(y, (x, *parameters), grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_autocast_casts_everything() -> None:
    leaves = SMALL.tensors('cpu')[:-1]
    with torch.autocast('cpu', torch.bfloat16):
        y = mlp(*leaves)
        mixed = mlp(leaves[0].bfloat16(), *leaves[1:])
        double = mlp(*(leaf.double() for leaf in leaves))
    assert y.dtype is mixed.dtype is torch.bfloat16
    assert double.dtype is torch.float64
    assert torch.equal(y, mixed)
    assert torch.equal(y, mlp(*(leaf.bfloat16() for leaf in leaves)))
    y.float().sum().backward()
    assert {leaf.grad.dtype for leaf in leaves} == {torch.float32}


def test_is_a_well_formed_operator() -> None:
    x, *parameters, grad = SMALL.tensors('cpu')
    ops = torch.ops.uniformer_mm
    torch.library.opcheck(ops.mlp.default, (x, *parameters, 'auto'))
    x, w_HC, b_H, w_OH = (t.detach() for t in (x, *parameters[:3]))
    b_O = parameters[3].detach()
    torch.library.opcheck(ops.mlp_add.default, (x, w_HC, b_H, w_OH, b_O, grad, 'auto'))
    torch.library.opcheck(ops.mlp_input_grad.default, (grad, x, w_HC, b_H, w_OH, 'auto'))
    for has_b_O in (True, False):
        arguments = (grad, x, w_HC, b_H, w_OH, has_b_O, 'auto')
        torch.library.opcheck(ops.mlp_weight_grad.default, arguments)


def count(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_counts_the_operations_of_two_layers() -> None:
    leaves = SMALL.tensors('cpu')[:-1]
    for training in (False, True):

        def run(function, training: bool = training) -> None:
            with torch.set_grad_enabled(training):
                y = function(*leaves)
            if training:
                y.sum().backward()

        assert count(lambda: run(mlp)) == count(lambda: run(framework))
    x, w_HC, b_H, w_OH, b_O = (leaf.detach() for leaf in leaves)
    grad = torch.ones(2, 3, 8)
    ops = torch.ops.uniformer_mm
    backward = count(lambda: ops.mlp_input_grad(grad, x, w_HC, b_H, w_OH, 'auto'))
    backward += count(lambda: ops.mlp_weight_grad(grad, x, w_HC, b_H, w_OH, True, 'auto'))
    assert count(lambda: mlp_add(x, w_HC, b_H, w_OH, b_O, x)) == backward // 2
    assert backward == 2 * count(lambda: mlp(x, w_HC, b_H, w_OH, b_O))


class Layers(nn.Module):
    """An MLP between two element-wise operations."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 16), nn.Linear(16, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sine of the MLP of the sine."""
        fc1, fc2 = self.fc1, self.fc2
        return mlp(x.sin(), fc1.weight, fc1.bias, fc2.weight, fc2.bias).sin()


def test_compiles_without_breaks_and_for_every_size() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layers = Layers()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(layers, fullgraph=True, dynamic=True, backend=counter)
    for size in ((5, 6), (7, 4), (9, 10)):
        x = torch.randn(3, *size, 8, requires_grad=True)
        grad = torch.randn(x.shape)
        found = torch.autograd.grad(compiled(x), [x, *layers.parameters()], grad)
        expected = torch.autograd.grad(layers(x), [x, *layers.parameters()], grad)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


def test_ddp_sees_an_ordinary_operator(tmp_path) -> None:
    torch.manual_seed(0)
    layers, x = Layers(), torch.randn(2, 5, 6, 8)
    layers(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in layers.parameters()]
    replica = copy.deepcopy(layers)
    replica.zero_grad()
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    try:
        nn.parallel.DistributedDataParallel(replica)(x).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for parameter, grad in zip(replica.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_meta_tensors_give_shapes() -> None:
    sizes = ((2, 4, 5, 6), (24, 6), (24,), (7, 24), (7,))
    y = mlp(*(torch.empty(size, device='meta', dtype=torch.bfloat16) for size in sizes))
    assert (y.shape, y.dtype, y.device.type) == ((2, 4, 5, 7), torch.bfloat16, 'meta')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'x_BSC': torch.zeros(8)}, r'x_BSC has shape \(8,\) and dtype torch.float32; expected'),
        ({'x_BSC': torch.zeros(2, 8).long()}, r'dtype torch.int64; expected a floating-point map'),
        ({'x_BSC': torch.zeros(2, 6)}, r'w_HC has shape \(16, 8\) .* expected \(H, 6\) and'),
        ({'w_OH': torch.zeros(4, 15)}, r'w_OH \(4, 15\); expected \(H, 8\) and \(O, H\)'),
        ({'w_HC': torch.zeros(16, 8, 1, 1)}, r'w_HC has shape \(16, 8, 1, 1\)'),
        ({'b_H': torch.zeros(8)}, r'b_H has shape \(8,\); expected \(16,\)'),
        ({'b_O': torch.zeros(8)}, r'b_O has shape \(8,\); expected \(4,\)'),
        ({'b_O': torch.zeros(4, device='meta')}, r'b_O is on meta, x_BSC on cpu'),
        (
            {'x_BSC': torch.zeros(2, 8).bfloat16()},
            r"dtypes \['torch.bfloat16', 'torch.float32'\]; cast them to one, or use autocast",
        ),
        (
            {'w_OH': torch.zeros(4, 16, requires_grad=True), 'x_BSC': torch.zeros(2, 8).double()},
            r"dtypes \['torch.float32', 'torch.float64'\]",
        ),
        ({'backend': 'cublas'}, r"backend='cublas' is not known; use one of \['auto', 'triton'"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    arguments = {
        'x_BSC': torch.zeros(2, 8),
        'w_HC': torch.zeros(16, 8),
        'b_H': torch.zeros(16),
        'w_OH': torch.zeros(4, 16),
        'b_O': torch.zeros(4),
    }
    with pytest.raises(ValueError, match=message):
        mlp(**arguments | change)


def test_a_sum_says_what_does_not_fit() -> None:
    *leaves, grad = SMALL.tensors('cpu')
    with pytest.raises(ValueError, match='mlp_add records no gradient'):
        mlp_add(*leaves, grad)
    with torch.no_grad(), pytest.raises(ValueError, match=r'add_BSO has shape \(2, 3, 7\) on cpu'):
        mlp_add(*leaves, grad[..., :7])
    with torch.no_grad(), pytest.raises(ValueError, match=r"dtypes \['torch.bfloat16', 'torch.fl"):
        mlp_add(*leaves[:4], leaves[4].bfloat16(), grad)


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, 'triton_is_interpreted', lambda: False)
    dispatch.resolve.cache_clear()
    leaves = SMALL.tensors('cpu')[:-1]
    with pytest.raises(ValueError, match=r"backend='triton' cannot run: "):
        mlp(*leaves, backend='triton')
    device = torch.device('cuda')
    reason = dispatch.why_not_triton_mlp(device, torch.bfloat16, 64, 320)
    assert reason == '320 channels are more than 128'


def test_repeats_bit_for_bit() -> None:
    case = MlpCase((2, 3, 9, 7, 16), 64, 16)
    first, second = (mlp_results(mlp, case, 'cpu') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_works_without_triton() -> None:
    code = (
        'import sys; sys.modules["triton"] = None\n'
        'import torch\n'
        'from uniformer_mm.ops import mlp\n'
        'x, w, b = torch.ones(2, 4), torch.ones(4, 4, requires_grad=True), torch.zeros(4)\n'
        'mlp(x, w.detach(), b, w, b).sum().backward()\n'
        'assert "uniformer_mm.ops.triton_mlp" not in sys.modules\n'
        'print(w.grad.sum().item())\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 16 elements, each twice gelu(4).
    kept = (1 + torch.erf(torch.tensor(4 * 0.5**0.5, dtype=torch.float64))) / 2
    assert float(done.stdout) == pytest.approx(16 * 2 * 4 * kept.item())
