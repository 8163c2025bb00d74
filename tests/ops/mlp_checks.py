# SPDX-License-Identifier: Apache-2.0
"""The MLPs that every implementation is held to the rule of ``checks.py`` on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from uniformer_mm.ops import reference
from uniformer_mm.ops.mlp import implementation

from .checks import assert_errors

NAMES = ('output', 'input gradient', 'w_HC', 'b_H', 'w_OH', 'b_O')


class _Mlp(torch.autograd.Function):
    """The three functions of an implementation, as fused blocks call them."""

    @staticmethod
    def forward(ctx, x, w_HC, b_H, w_OH, b_O, backend):
        ctx.save_for_backward(x, w_HC, b_H, w_OH)
        ctx.module = implementation(x, w_HC, w_OH, backend)
        return ctx.module.forward(x, w_HC, b_H, w_OH, b_O)

    @staticmethod
    def backward(ctx, grad):
        x, *_ = inputs = ctx.saved_tensors
        *grads, b_O_grad = ctx.module.weight_grad(grad, *inputs, True)
        *_, none = ctx.module.weight_grad(grad, *inputs, False)
        assert none.shape == (0,)
        assert all(g.dtype is torch.promote_types(x.dtype, torch.float32) for g in grads)
        grads = (g.to(x.dtype) for g in (*grads, b_O_grad))
        return ctx.module.input_grad(grad, *inputs), *grads, None


def mlp(x: Tensor, *parameters: Tensor, backend: str) -> Tensor:
    """The MLP and its gradients."""
    return _Mlp.apply(x, *parameters, backend)


@dataclass(frozen=True)
class MlpCase:
    """One MLP. ``shape`` is channels last."""

    shape: tuple[int, ...]
    hidden: int
    outputs: int
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        shape = 'x'.join(map(str, self.shape))
        return f'{shape}-{self.hidden}-{self.outputs}-{str(self.dtype).split(".")[1]}'

    def tensors(self, device: str) -> tuple[Tensor, ...]:
        """Input, matrices, biases and cotangent; hidden values of about the width of the GELU."""
        draw = torch.Generator().manual_seed(0)
        channels, hidden, outputs = self.shape[-1], self.hidden, self.outputs
        shapes_and_scales = (
            (self.shape, 1.0),
            ((hidden, channels), 2 * channels**-0.5),
            ((hidden,), 1.0),
            ((outputs, hidden), hidden**-0.5),
            ((outputs,), 1.0),
            ((*self.shape[:-1], outputs), 1.0),
        )
        *leaves, grad = (
            (torch.randn(shape, generator=draw) * scale).to(self.dtype).to(device)
            for shape, scale in shapes_and_scales
        )
        return *(leaf.requires_grad_() for leaf in leaves), grad


def by_pytorch(x: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """What users write without this package."""
    return F.linear(F.gelu(F.linear(x, w_HC, b_H)), w_OH, b_O)


def mlp_results(function, case: MlpCase, device: str, **kwargs) -> list[Tensor]:
    """Output and gradients of the case for its random cotangent."""
    *leaves, grad = case.tensors(device)
    y = function(*leaves, **kwargs)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def check_mlp(case: MlpCase, device: str, backend: str) -> None:
    """Outputs and all gradients of a backend, their dtypes and their memory layout."""
    ours = mlp_results(mlp, case, device, backend=backend)
    assert {result.dtype for result in ours} == {case.dtype}
    assert ours[0].is_contiguous()
    other = mlp_results(by_pytorch, case, device)
    assert_errors(str(case), NAMES, ours, other, exact_results(case, device))


def exact_results(case: MlpCase, device: str) -> list[Tensor]:
    """Float64 results for the values that the case has in its own dtype."""
    *leaves, grad = case.tensors(device)
    leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y = reference.mlp(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.double())]


def check_mlp_add(case: MlpCase, stream: torch.dtype, device: str, backend: str) -> None:
    """``add + mlp(x)`` with both in the dtype ``stream``; without gradients."""
    x, *parameters, add = (t.detach() for t in case.tensors(device))
    x, add = (3.3 * x.double()).to(stream), (3.3 * add.double()).to(stream)
    module = implementation(x, parameters[0], parameters[2], backend)
    ours = module.forward(x, *parameters, add)
    assert ours.dtype is stream
    assert ours.is_contiguous()
    rounded = x.to(case.dtype)
    other = (add + by_pytorch(rounded, *parameters)).to(stream)
    truth = add.double() + reference.mlp(rounded, *parameters)
    assert_errors(f'{case} + {stream}', ['sum'], [ours], [other], [truth])
