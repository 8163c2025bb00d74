# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution on channels-last maps with two or three axes, as an operator of PyTorch.

Registered with ``torch.library`` (shapes for tracing, gradient, autocast rule), so that
``torch.compile``, DDP and FSDP see an ordinary operator. Which implementation runs is decided
inside the operator by ``dispatch.py``. Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``,
``C`` channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter

from .autocast import register_autocast
from .dispatch import resolve

NAMESPACE = 'uniformer_mm'

# Registered kernel by kernel instead of by torch.library.custom_op, whose wrappers take twice the
# host time per recorded call.
_library = torch.library.Library(NAMESPACE, 'DEF')
_library.define(
    'depthwise_conv(Tensor x, Tensor weight, Tensor? bias, bool residual, str backend) -> Tensor'
)
_library.define(
    'depthwise_conv_input_grad(Tensor grad, Tensor weight, bool residual, str backend) -> Tensor'
)
_library.define(
    'depthwise_conv_weight_grad(Tensor grad, Tensor x, SymInt[] kernel, str backend)'
    ' -> (Tensor, Tensor)'
)
_forward = torch.ops.uniformer_mm.depthwise_conv.default
_input_grad = torch.ops.uniformer_mm.depthwise_conv_input_grad.default
_weight_grad = torch.ops.uniformer_mm.depthwise_conv_weight_grad.default


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, backend: str) -> Tensor:
    module = resolve('depthwise_conv', backend, x.device, x.dtype, tuple(weight.shape[2:]))
    return module.forward(x, weight, bias, residual)


def _run_input_grad(grad: Tensor, weight: Tensor, residual: bool, backend: str) -> Tensor:
    module = resolve('depthwise_conv', backend, grad.device, grad.dtype, tuple(weight.shape[2:]))
    return module.input_grad(grad, weight, residual)


def _run_weight_grad(
    grad: Tensor, x: Tensor, kernel: list[int], backend: str
) -> tuple[Tensor, Tensor]:
    module = resolve('depthwise_conv', backend, x.device, x.dtype, tuple(kernel))
    return module.weight_grad(grad, x, tuple(kernel))


def _shape_of_map(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _shape_of_weight_grad(
    grad: Tensor, x: Tensor, kernel: list[int], backend: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    channels = x.shape[-1]
    taps = x.new_empty((channels, 1, *kernel), dtype=dtype)
    return taps, x.new_empty((channels,), dtype=dtype)


class _DepthwiseConv(torch.autograd.Function):
    """The map's gradient in its dtype, the parameters' in theirs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, backend: str
    ) -> Tensor:
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight or needs_bias else None, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.kernel, ctx.residual, ctx.backend = weight.shape[2:], residual, backend
        with torch._C._AutoDispatchBelowAutograd():
            return _forward(x, weight, bias, residual, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            grads = _differentiable_grads(
                grad, x, weight, ctx.residual, (needs_x, needs_weight, needs_bias)
            )
            return *grads, None, None
        x_grad = weight_grad = bias_grad = None
        if needs_x:
            x_grad = _input_grad(grad, weight, ctx.residual, ctx.backend)
        if needs_weight or needs_bias:
            weight_grad, bias_grad = _weight_grad(grad, x, ctx.kernel, ctx.backend)
            weight_grad = weight_grad.to(weight.dtype) if needs_weight else None
            bias_grad = bias_grad.to(ctx.bias_dtype) if needs_bias else None
        return x_grad, weight_grad, bias_grad, None, None


def _differentiable_grads(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    residual: bool,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """The gradients of map, weight and bias out of operators that have gradients themselves.

    For second derivatives (``create_graph=True``); a GPU's half precision is computed in float32.
    """
    dtype = torch.promote_types(grad.dtype, weight.dtype)
    if dtype in (torch.bfloat16, torch.float16):
        dtype = torch.float32
    ndim = weight.ndim - 2
    # Where no gradient of the parameters is wanted, the map was not kept: its values do not count.
    x = grad.detach() if x is None else x
    x_grad, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
        grad.movedim(-1, 1).to(dtype),
        x.movedim(-1, 1).to(dtype),
        weight.to(dtype),
        [weight.shape[0]],
        [1] * ndim,
        [k // 2 for k in weight.shape[2:]],
        [1] * ndim,
        False,
        [0] * ndim,
        weight.shape[0],
        list(needed),
    )
    if x_grad is not None:
        x_grad = x_grad.movedim(1, -1).to(grad.dtype)
        x_grad = x_grad + grad if residual else x_grad
    return (
        x_grad,
        None if weight_grad is None else weight_grad.to(weight.dtype),
        None if bias_grad is None else bias_grad.to(weight.dtype),
    )


def _autograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, backend: str
) -> Tensor:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _DepthwiseConv.apply(x, weight, bias, residual, backend)
    with torch._C._AutoDispatchBelowAutograd():
        return _forward(x, weight, bias, residual, backend)


_library.impl('depthwise_conv', _run, 'CompositeExplicitAutograd')
_library.impl('depthwise_conv_input_grad', _run_input_grad, 'CompositeExplicitAutograd')
_library.impl('depthwise_conv_weight_grad', _run_weight_grad, 'CompositeExplicitAutograd')
_library.impl('depthwise_conv', _shape_of_map, 'Meta')
_library.impl('depthwise_conv_input_grad', _shape_of_map, 'Meta')
_library.impl('depthwise_conv_weight_grad', _shape_of_weight_grad, 'Meta')
_library.impl('depthwise_conv', _autograd, 'Autograd')
# The parameters keep their dtype: every implementation accumulates in float32 and reads the weights
# as they are, so rounding them first would cost a launch and accuracy, and gain nothing.
register_autocast(_library, 'depthwise_conv', _forward, casts=1)


def _flops_of_map(map_shape: list[int], weight_shape: list[int], *_: Any, **__: Any) -> int:
    """Operations, two for each multiply-add, as torch counts those of its own convolutions."""
    return 2 * math.prod(map_shape) * math.prod(weight_shape[2:])


def _flops_of_weight_grad(
    grad_shape: list[int], x_shape: list[int], kernel: list[int], *_: Any, **__: Any
) -> int:
    return 2 * math.prod(x_shape) * math.prod(kernel)


if hasattr(flop_counter, 'register_flop_formula'):  # torch 2.2
    flop_counter.register_flop_formula([_forward.overloadpacket, _input_grad.overloadpacket])(
        _flops_of_map
    )
    flop_counter.register_flop_formula(_weight_grad.overloadpacket)(_flops_of_weight_grad)


def _check(x_BSC: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """One sentence for each way in which the arguments do not fit together."""
    rank = x_BSC.ndim - 2
    if rank not in (2, 3):
        raise ValueError(
            f'x_BSC has shape {tuple(x_BSC.shape)}; expected (B, H, W, C) or (B, T, H, W, C).'
        )
    channels = x_BSC.shape[-1]
    if weight.ndim != rank + 2 or weight.shape[0] != channels or weight.shape[1] != 1:
        raise ValueError(
            f'weight has shape {tuple(weight.shape)}; expected ({channels}, 1) and {rank} kernel '
            f'sizes for x_BSC of shape {tuple(x_BSC.shape)}, channels last.'
        )
    if any(k % 2 == 0 for k in weight.shape[2:]):
        raise ValueError(
            f'weight has kernel {tuple(weight.shape[2:])}; expected odd sizes, which keep the map '
            'centred.'
        )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f'bias has shape {tuple(bias.shape)}; expected ({channels},).')
    if not x_BSC.is_floating_point():
        raise ValueError(f'x_BSC has dtype {x_BSC.dtype}; expected a floating-point map.')
    if x_BSC.device != weight.device:
        raise ValueError(
            f'weight is on {weight.device}, x_BSC on {x_BSC.device}; move them to one device.'
        )


def depthwise_conv(
    x_BSC: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: bool = False,
    backend: str = 'auto',
) -> Tensor:
    """Depthwise convolution of stride 1 that keeps the size, on a channels-last map.

    Zeros surround the map (padding k // 2). Sums are in float32, also in half precision; the
    weight gradient adds its parts in a fixed order, so that a step repeats bit for bit. Under
    autocast the map is cast to the autocast dtype, the parameters are not. Second derivatives are
    those of PyTorch's own convolution.

    Args:
        x_BSC: ``(B, H, W, C)`` or ``(B, T, H, W, C)``; contiguous, else it is copied.
        weight: ``(C, 1, *k)`` as in ``nn.Conv2d`` and ``nn.Conv3d``, any odd k per axis.
        bias: ``(C,)`` or None.
        residual: Whether ``x_BSC`` is added to the result, at no cost: it is one more on the
            centre tap.
        backend: ``'auto'``, or a name of its rows in ``dispatch.BACKENDS``.

    Returns:
        Contiguous map in the shape and dtype of ``x_BSC``.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or the backend cannot run here.
    """
    _check(x_BSC, weight, bias)
    return _forward(x_BSC, weight, bias, residual, backend)
