# SPDX-License-Identifier: Apache-2.0
"""The operations on rows joined as in fused blocks, and what these must equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from uniformer_mm.ops import reference, rows

from .checks import assert_errors

EPS = 1e-3


class _Operations:
    """The operations by name, with the ``backend`` of ``rows.implementation``."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(x: Tensor, *arguments: object, backend: str = 'auto') -> Any:
            return getattr(rows.implementation(x, backend), name)(x, *arguments)

        return call


operations = _Operations()
NORM_NAMES = ('output', 'input grad', 'gamma grad', 'beta grad', 'weight grad', 'bias grad')


@dataclass(frozen=True)
class RowsCase:
    """A map of ``samples`` times ``rows`` rows."""

    rows: int
    channels: int
    outputs: int
    dtype: torch.dtype = torch.float32
    samples: int = 1

    def __str__(self) -> str:
        sizes = 'x'.join(map(str, (self.samples, self.rows, self.channels, self.outputs)))
        return f'{sizes}-{str(self.dtype).split(".")[1]}'

    def tensor(self, seed: int, *shape: int, device: str, offset: float = 0.0) -> Tensor:
        """Random values that are exact in the dtype of the case."""
        draw = torch.Generator().manual_seed(seed)
        values = torch.randn(shape, generator=draw) + offset
        return values.to(self.dtype).to(device)

    def maps(self, device: str) -> tuple[Tensor, Tensor]:
        """Two maps, the first with a mean that is not zero."""
        shape = (self.samples * self.rows, self.channels)
        return (
            self.tensor(0, *shape, device=device, offset=2.0),
            self.tensor(1, *shape, device=device),
        )

    def norm_linear(self, device: str) -> tuple[list[Tensor], Tensor]:
        """Input, gamma, beta, weight, bias that need gradients, and a cotangent."""
        count, C, O = self.samples * self.rows, self.channels, self.outputs  # noqa: E741
        shapes = ((count, C), (C,), (C,), (O, C), (O,))
        leaves = [
            self.tensor(n, *shape, device=device, offset=float(n < 2))
            for n, shape in enumerate(shapes)
        ]
        grad = self.tensor(9, count, O, device=device)
        return [leaf.requires_grad_() for leaf in leaves], grad


def plain_norm_linear(
    x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor, eps: float, axis: int
) -> Tensor:
    """What users write without this package, in the dtype of the input."""
    if axis:
        normed = F.layer_norm(x, x.shape[1:], gamma, beta, eps)
    else:
        normed = F.batch_norm(x, None, None, gamma, beta, True, 0.1, eps)
    return F.linear(normed, weight, bias)


def by_autograd(
    function, case: RowsCase, device: str, axis: int, dtype: torch.dtype
) -> list[Tensor]:
    """Output and gradients, in ``dtype``, of a function that autograd can differentiate."""
    leaves, grad = case.norm_linear(device)
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    y = function(*leaves, EPS, axis)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def by_rows(case: RowsCase, device: str, axis: int, backend: str) -> list[Tensor]:
    """The same through the operations on rows, as fused blocks join them."""
    (x, gamma, beta, weight, bias), grad = case.norm_linear(device)
    x, gamma, beta, weight, bias = (t.detach() for t in (x, gamma, beta, weight, bias))
    options = {'backend': backend}
    if axis:
        xhat, rstd = operations.layer_standardise(x, EPS, x.dtype, **options)
    else:
        xhat, rstd = operations.batch_standardise(x, EPS, x.dtype, None, **options)
    folded, folded_bias = operations.fold(weight, bias, gamma, beta, x.dtype, **options)
    y = F.linear(xhat, folded, folded_bias)
    bias_grad = operations.column_sum(grad, **options)
    weight_grad, affine_grad = operations.fold_grad(
        grad.float().t() @ xhat.float(), bias_grad, weight, gamma, beta, **options
    )
    xhat_grad = grad @ folded
    stream = torch.zeros_like(x)
    if axis:
        x_grad = operations.layer_standardise_grad(
            xhat_grad, xhat, rstd, stream, x.dtype, **options
        )
    else:
        x_grad = operations.batch_standardise_grad(
            xhat_grad, xhat, rstd, gamma, affine_grad, stream, x.dtype, **options
        )
    return [y, x_grad, *affine_grad, weight_grad, bias_grad]


def check_norm_linear(case: RowsCase, device: str, axis: int, backend: str) -> None:
    """Outputs and all gradients of a norm and the product after it."""
    ours = by_rows(case, device, axis, backend)
    other = by_autograd(plain_norm_linear, case, device, axis, case.dtype)
    truth = by_autograd(reference.norm_linear, case, device, axis, torch.float64)
    assert_errors(str(case), NORM_NAMES, ours, other, truth)


def check_gelu_grad(case: RowsCase, device: str, backend: str) -> None:
    """GELU, its gradient and the sum of that."""
    h, grad = case.maps(device)
    ours = operations.gelu_grad(grad.clone(), h, backend=backend)
    wide = h.double().requires_grad_()
    exact = wide * (1 + torch.erf(wide * 0.5**0.5)) / 2
    (exact_grad,) = torch.autograd.grad(exact, wide, grad.double())
    plain_grad = torch.ops.aten.gelu_backward(grad, h)
    other = F.gelu(h), plain_grad, plain_grad.sum(0)
    truth = exact.detach(), exact_grad, exact_grad.sum(0)
    assert_errors(str(case), ('gelu', 'gradient', 'sum'), ours, other, truth)


def check_branch(case: RowsCase, device: str, backend: str, *, has_factors: bool) -> None:
    """The residual sum in float32 with a copy, and the branch's gradient with its sum."""
    _, branch = case.maps(device)
    x = torch.randn(branch.shape, generator=torch.Generator().manual_seed(5)).to(device)
    factors = case.tensor(6, case.samples, device=device) if has_factors else None
    factor_N1 = torch.ones(1, 1, device=device)
    if has_factors:
        factor_N1 = factors.repeat_interleave(case.rows)[:, None]
    y, copy = operations.add_branch(x, branch, factors, case.dtype, backend=backend)
    exact = x.double() + branch.double() * factor_N1.double()
    plain = x + branch.float() * factor_N1.float()
    outputs = (plain, plain.to(case.dtype))
    assert_errors(str(case), ('sum', 'copy'), (y, copy), outputs, (exact, exact))
    grad, total = operations.branch_grad(x, factors, case.dtype, backend=backend)
    exact = x.double() * factor_N1.double()
    plain = (x * factor_N1.float()).to(case.dtype)
    sums = (plain, plain.sum(0)), (exact, exact.sum(0))
    assert_errors(str(case), ('gradient', 'its sum'), (grad, total), *sums)
