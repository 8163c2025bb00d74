# SPDX-License-Identifier: Apache-2.0
"""Operations of the package beside the PyTorch's operators for the same results.

Shapes as in ``uniformer_mm/ops/rows.py``: ``N`` rows, ``C`` channels, ``H`` hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from uniformer_mm.ops import mlp, reference, rows
from uniformer_mm.ops.torch import rows as pytorch_rows

EPS = 1e-5
MLP_RATIO = 4


def first_excess(
    names: Iterable[str],
    ours: Iterable[Tensor],
    theirs: Iterable[Tensor],
    exact: Iterable[Tensor],
) -> str | None:
    """The first result that is off by more than twice the PyTorch's error and one rounding.

    Neither the largest nor the mean square error of two right results keeps a fixed ratio, so it
    is both that must be beyond the bound, or the largest alone beyond twice the bound.
    """
    for name, found, pytorch, truth in zip(names, ours, theirs, exact, strict=True):
        assert found.shape == truth.shape, name
        truth = truth.double()
        errors = found.double() - truth, pytorch.double() - truth, truth
        excess = []
        for size in (_largest, Tensor.norm):
            error, theirs_error, scale = (float(size(tensor)) for tensor in errors)
            bound = 2 * theirs_error + torch.finfo(found.dtype).eps * scale
            if error <= bound:
                excess.append(0.0)
            else:
                # Not a number is beyond every bound.
                excess.append(error / bound if bound and error == error else math.inf)
        if excess[0] > 2 or all(excess):
            return f'{name} is off by {excess[0]:.2g} times as much as allowed'
    return None


def _largest(x: Tensor) -> Tensor:
    return x.abs().max() if x.numel() else x.sum()


@dataclass(frozen=True)
class Comparison:
    """One operation, ready to be called.

    Attributes:
        operation: Its name.
        shape: Of the map, channels last.
        dtype: Of the products; the residual stream is float32.
        results: Names of what the calls return.
        ours: The package's form.
        theirs: The PyTorch's form.
        exact: The results in float64.
        nbytes: What must be read and written at least; None if that does not bound the time.
    """

    operation: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    results: tuple[str, ...]
    ours: Callable[[], tuple[Tensor, ...]]
    theirs: Callable[[], tuple[Tensor, ...]]
    exact: Callable[[], tuple[Tensor, ...]]
    nbytes: int | None

    def refusal(self) -> str | None:
        """The first result that is off by more than the rule of the tests allows; None if none."""
        return first_excess(self.results, self.ours(), self.theirs(), self.exact())


def _random(shape: tuple[int, ...], device: str, seed: int) -> Tensor:
    draw = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=draw, device=device)


def mlp_comparison(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, train: bool, backend: str
) -> Comparison:
    """The MLP of a block, forward or forward and backward; bounded by products and bytes."""
    channels = shape[-1]
    hidden = MLP_RATIO * channels
    scales = {(hidden, channels): channels**-0.5, (channels, hidden): hidden**-0.5}
    shapes = (shape, (hidden, channels), (hidden,), (channels, hidden), (channels,), shape)
    *leaves, grad = (
        (_random(size, device, seed) * scales.get(size, 1)).to(dtype)
        for seed, size in enumerate(shapes)
    )
    leaves = [leaf.requires_grad_(train) for leaf in leaves]

    def results(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(train):
            y = function(*inputs)
        grads = torch.autograd.grad(y, inputs, grad.to(y.dtype)) if train else ()
        return y.detach(), *grads

    def pytorch(x: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
        return F.linear(F.gelu(F.linear(x, w_HC, b_H)), w_OH, b_O)

    def exact() -> tuple[Tensor, ...]:
        doubles = (leaf.detach().double().requires_grad_(train) for leaf in leaves)
        return results(reference.mlp, *doubles)

    @torch.no_grad()
    def ours() -> tuple[Tensor, ...]:
        x, w_HC, b_H, w_OH, b_O = (leaf.detach() for leaf in leaves)
        ops = mlp.implementation(x, w_HC, w_OH, backend)
        y = ops.forward(x, w_HC, b_H, w_OH, b_O)
        if not train:
            return (y,)
        x_grad = ops.input_grad(grad, x, w_HC, b_H, w_OH)
        return y, x_grad, *ops.weight_grad(grad, x, w_HC, b_H, w_OH, True)

    gradients = ('input gradient', 'w_HC', 'b_H', 'w_OH', 'b_O') if train else ()
    return Comparison(
        'mlp',
        shape,
        dtype,
        ('output', *gradients),
        ours,
        lambda: results(pytorch, *leaves),
        exact,
        None,
    )


def mlp_add_comparison(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, backend: str
) -> Comparison:
    """``x + mlp(x)`` on a float32 residual stream, without gradients."""
    channels = shape[-1]
    hidden = MLP_RATIO * channels
    sizes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
    stream = _random(shape, device, 0)
    parameters = [
        (_random(size, device, seed) * size[-1] ** -0.5).to(dtype)
        for seed, size in enumerate(sizes, start=1)
    ]

    ops = mlp.implementation(stream, parameters[0], parameters[2], backend)

    def pytorch() -> tuple[Tensor]:
        w_HC, b_H, w_OH, b_O = parameters
        return (stream + F.linear(F.gelu(F.linear(stream.to(dtype), w_HC, b_H)), w_OH, b_O),)

    return Comparison(
        'mlp_add',
        shape,
        dtype,
        ('sum',),
        lambda: (ops.forward(stream, *parameters, stream),),
        pytorch,
        lambda: (stream.double() + reference.mlp(stream.to(dtype), *parameters),),
        None,
    )


def _row_calls(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, tuple]:
    """By operation: its arguments, the PyTorch's form, names of results."""
    size = (math.prod(shape[:-1]), shape[-1])
    channels = size[1:]
    stream, branch, grad = (_random(size, device, seed) for seed in range(3))
    branch, grad = branch.to(dtype), grad.to(dtype)
    scale, shift = (_random(channels, device, seed) for seed in (3, 4))
    weight = _random((MLP_RATIO * channels[0], *channels), device, 5)
    bias = _random((MLP_RATIO * channels[0],), device, 6)
    wide = torch.float32
    mean_C, mean_N = stream.mean(0), stream.mean(1)
    rstd_C = torch.rsqrt(stream.var(0, correction=0) + EPS)
    rstd_N = torch.rsqrt(stream.var(1, correction=0) + EPS)
    layer_xhat, batch_xhat = (
        pytorch_rows.layer_standardise(stream, EPS, dtype)[0],
        pytorch_rows.batch_standardise(stream, EPS, dtype, None)[0],
    )
    affine_grad = torch.stack([(grad.float() * batch_xhat).sum(0), grad.float().sum(0)]) / scale

    def layer_grad() -> tuple[Tensor]:
        found, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad.to(wide), stream, channels, mean_N[:, None], rstd_N[:, None], None, None,
            [True, False, False],
        )  # fmt: skip
        return (found + stream,)

    def batch_grad() -> tuple[Tensor]:
        found, _, _ = torch.ops.aten.native_batch_norm_backward(
            grad.to(wide), stream, None, None, None, mean_C, rstd_C, True, EPS,
            [True, False, False],
        )  # fmt: skip
        return (found + stream,)

    return {
        'layer_standardise': (
            (stream, EPS, dtype),
            lambda: (F.layer_norm(stream, channels, None, None, EPS).to(dtype), rstd_N),
            ('xhat', 'rstd'),
        ),
        'layer_standardise_grad': (
            (grad, layer_xhat, rstd_N, stream, wide),
            layer_grad,
            ('input gradient',),
        ),
        'batch_standardise': (
            (stream, EPS, dtype, None),
            lambda: (F.batch_norm(stream, None, None, None, None, True).to(dtype), rstd_C),
            ('xhat', 'rstd'),
        ),
        'batch_standardise_grad': (
            (grad, batch_xhat, rstd_C, scale, affine_grad, stream, wide),
            batch_grad,
            ('input gradient',),
        ),
        'fold': (
            (weight, bias, scale, shift, dtype),
            lambda: ((weight * scale).to(dtype), (bias + weight @ shift).to(dtype)),
            ('matrix', 'bias'),
        ),
        'column_sum': ((grad,), lambda: (grad.sum(0, dtype=wide),), ('sum',)),
        'gelu_grad': (
            (grad, branch),
            lambda: _pytorch_gelu_grad(grad, branch),
            ('gelu', 'gradient', 'sum'),
        ),
        'add_branch': ((stream, branch), lambda: (stream + branch,), ('sum',)),
        'branch_grad': (
            (stream, None, dtype),
            lambda: (stream.to(dtype), stream.sum(0)),
            ('gradient', 'sum'),
        ),
    }


def _pytorch_gelu_grad(grad: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h_grad = torch.ops.aten.gelu_backward(grad, h)
    return F.gelu(h), h_grad, h_grad.sum(0, dtype=torch.float32)


def _tensors(found: object) -> tuple[Tensor, ...]:
    found = found if isinstance(found, tuple) else (found,)
    return tuple(tensor for tensor in found if tensor is not None)


def _wide(argument: object) -> object:
    if isinstance(argument, Tensor):
        return argument.double()
    return torch.float64 if isinstance(argument, torch.dtype) else argument


def row_comparisons(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, backend: str
) -> Iterable[Comparison]:
    """What stands between the products of a block, all bounded by bytes."""
    for name, (arguments, theirs, results) in _row_calls(shape, dtype, device).items():
        ops = rows.implementation(arguments[0], backend)
        function, exact = getattr(ops, name), getattr(pytorch_rows, name)
        # Memory of its own: the operation may use it for its result.
        own = (arguments[0].clone(), *arguments[1:])

        def ours(function=function, own=own) -> tuple[Tensor, ...]:
            return _tensors(function(*own))

        read = sum(tensor.nbytes for tensor in arguments if isinstance(tensor, Tensor))
        yield Comparison(
            name,
            shape,
            dtype,
            results,
            ours,
            theirs,
            lambda exact=exact, arguments=arguments: _tensors(exact(*map(_wide, arguments))),
            read + sum(tensor.nbytes for tensor in theirs()),
        )
