# SPDX-License-Identifier: Apache-2.0
"""The MLP of a block, two matrix products with a GELU between, as an operator of the framework.

Registered with ``torch.library`` as ``depthwise.py`` is. Where the Triton kernels run, the hidden
map, the largest of a block, never exists in memory: the backward pass makes it again from the
input. Elsewhere the framework's own operators run, and keep it. Shapes: ``B`` batch, ``S`` the axes
``H W`` or ``T H W``; in matrices ``C`` input channels, ``H`` hidden units, ``O`` output channels.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import flop_counter

from .autocast import register_autocast
from .depthwise import NAMESPACE
from .dispatch import resolve

OPERATION = 'mlp'

_library = torch.library.Library(NAMESPACE, 'FRAGMENT')
_library.define('mlp(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, str backend) -> Tensor')
_library.define(
    'mlp_add(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor add, str backend)'
    ' -> Tensor'
)
_library.define(
    'mlp_input_grad(Tensor grad, Tensor x, Tensor w1, Tensor b1, Tensor w2, str backend) -> Tensor'
)
_library.define(
    'mlp_weight_grad(Tensor grad, Tensor x, Tensor w1, Tensor b1, Tensor w2, bool has_b2,'
    ' str backend) -> (Tensor, Tensor, Tensor, Tensor)'
)
_forward = torch.ops.uniformer_mm.mlp.default
_forward_add = torch.ops.uniformer_mm.mlp_add.default
_input_grad = torch.ops.uniformer_mm.mlp_input_grad.default
_weight_grad = torch.ops.uniformer_mm.mlp_weight_grad.default


def implementation(x_BSC: Tensor, w_HC: Tensor, w_OH: Tensor, backend: str = 'auto') -> ModuleType:
    """The module that runs for these tensors.

    It has ``forward``, ``input_grad`` and ``weight_grad``; they record no gradient:

    * ``forward(x_BSC, w_HC, b_H, w_OH, b_O, add_BSO=None) -> y_BSO``, see :func:`mlp_add`.
    * ``input_grad(grad_BSO, x_BSC, w_HC, b_H, w_OH) -> x_grad_BSC``.
    * ``weight_grad(grad_BSO, x_BSC, w_HC, b_H, w_OH, has_b_O)`` returns the gradients of ``w_HC``,
      ``b_H``, ``w_OH`` and ``b_O`` in float32 (float64 for float64), the last one empty unless
      ``has_b_O``: whoever made ``grad_BSO`` may have summed it already.

    Args:
        x_BSC: A map.
        w_HC: First matrix.
        w_OH: Second matrix.
        backend: As for :func:`mlp`.

    Raises:
        ValueError: The backend is not known or cannot run here.
    """
    # A compiler's symbols become numbers here: a program is for one size of the matrices.
    channels, outputs = int(w_HC.shape[1]), int(w_OH.shape[0])
    return resolve(OPERATION, backend, x_BSC.device, w_HC.dtype, channels, outputs)


def _check_dtypes(*tensors: Tensor) -> None:
    """Called behind autocast, which casts."""
    if any(tensor.dtype is not tensors[0].dtype for tensor in tensors):
        found = sorted({str(tensor.dtype) for tensor in tensors})
        raise ValueError(
            f'the map and the parameters have dtypes {found}; cast them to one, or use autocast.'
        )


def _run(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, backend: str) -> Tensor:
    _check_dtypes(x, w1, b1, w2, b2)
    return implementation(x, w1, w2, backend).forward(x, w1, b1, w2, b2)


def _run_add(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, add: Tensor, backend: str
) -> Tensor:
    _check_dtypes(w1, b1, w2, b2)
    return implementation(x, w1, w2, backend).forward(x, w1, b1, w2, b2, add)


def _run_input_grad(
    grad: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, backend: str
) -> Tensor:
    return implementation(x, w1, w2, backend).input_grad(grad, x, w1, b1, w2)


def _run_weight_grad(
    grad: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, has_b2: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return implementation(x, w1, w2, backend).weight_grad(grad, x, w1, b1, w2, has_b2)


def _shape_of_output(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, *_: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], w2.shape[0]))


def _shape_of_sum(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, add: Tensor, backend: str
) -> Tensor:
    return add.new_empty(add.shape)


def _shape_of_input_grad(grad: Tensor, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _shape_of_weight_grad(
    grad: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, has_b2: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Not a product: symbols of older releases cannot be multiplied by a bool.
    shapes = w1.shape, b1.shape, w2.shape, (w2.shape[0] if has_b2 else 0,)
    return tuple(x.new_empty(shape, dtype=dtype) for shape in shapes)


class _Recomputing(torch.autograd.Function):
    """Gradient formula that keeps the input alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, backend: str
    ) -> Tensor:
        ctx.save_for_backward(x, w1, b1, w2)
        ctx.backend = backend
        with torch._C._AutoDispatchBelowAutograd():
            return _forward(x, w1, b1, w2, b2, backend)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2 = ctx.saved_tensors
        needs_x, *needs_parameters, _ = ctx.needs_input_grad
        x_grad, parameter_grads = None, (None,) * 4
        if needs_x:
            x_grad = _input_grad(grad, x, w1, b1, w2, ctx.backend)
        if any(needs_parameters):
            found = _weight_grad(grad, x, w1, b1, w2, needs_parameters[3], ctx.backend)
            parameter_grads = (
                g.to(x.dtype) if needed else None
                for g, needed in zip(found, needs_parameters, strict=True)
            )
        return x_grad, *parameter_grads, None


class _KeepingHidden(torch.autograd.Function):
    """Gradient formula that keeps the hidden map before the GELU, and not after it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, module: ModuleType
    ) -> Tensor:
        h = module.hidden(x, w1, b1)
        ctx.save_for_backward(x, h, w1, w2)
        ctx.module = module
        return module.output(h, w2, b2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, h, w1, w2 = ctx.saved_tensors
        return *ctx.module.grads(grad, x, h, w1, w2, ctx.needs_input_grad[:5]), None


def _autograd(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, backend: str) -> Tensor:
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, w1, b1, w2, b2)):
        _check_dtypes(x, w1, b1, w2, b2)
        module = implementation(x, w1, w2, backend)
        if module.KEEPS_HIDDEN:
            return _KeepingHidden.apply(x, w1, b1, w2, b2, module)
        return _Recomputing.apply(x, w1, b1, w2, b2, backend)
    with torch._C._AutoDispatchBelowAutograd():
        return _forward(x, w1, b1, w2, b2, backend)


_library.impl('mlp', _run, 'CompositeExplicitAutograd')
_library.impl('mlp_add', _run_add, 'CompositeExplicitAutograd')
_library.impl('mlp_input_grad', _run_input_grad, 'CompositeExplicitAutograd')
_library.impl('mlp_weight_grad', _run_weight_grad, 'CompositeExplicitAutograd')
_library.impl('mlp', _shape_of_output, 'Meta')
_library.impl('mlp_add', _shape_of_sum, 'Meta')
_library.impl('mlp_input_grad', _shape_of_input_grad, 'Meta')
_library.impl('mlp_weight_grad', _shape_of_weight_grad, 'Meta')
_library.impl('mlp', _autograd, 'Autograd')
register_autocast(_library, 'mlp', _forward, casts=5)


def _flops_of_two_layers(rows: int, w1_shape: list[int], w2_shape: list[int]) -> int:
    return 2 * rows * (math.prod(w1_shape) + math.prod(w2_shape))


def _flops(x_shape: list[int], w1: list[int], b1: Any, w2: list[int], *_: Any, **__: Any) -> int:
    """Operations, two for each multiply-add, as torch counts those of two linear layers."""
    return _flops_of_two_layers(math.prod(x_shape[:-1]), w1, w2)


def _flops_of_grad(
    grad: Any, x_shape: list[int], w1: list[int], b1: Any, w2: list[int], *_: Any, **__: Any
) -> int:
    """As for two linear layers: what is computed a second time to save memory does not count.

    That is one product more in the input gradient and two in the weight gradient.
    """
    return _flops_of_two_layers(math.prod(x_shape[:-1]), w1, w2)


if hasattr(flop_counter, 'register_flop_formula'):  # torch 2.2
    flop_counter.register_flop_formula([_forward.overloadpacket, _forward_add.overloadpacket])(
        _flops
    )
    flop_counter.register_flop_formula([_input_grad.overloadpacket, _weight_grad.overloadpacket])(
        _flops_of_grad
    )


def _check(x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> None:
    """One sentence for each way in which the arguments do not fit together."""
    if x_BSC.ndim < 2 or not x_BSC.is_floating_point():
        raise ValueError(
            f'x_BSC has shape {tuple(x_BSC.shape)} and dtype {x_BSC.dtype}; expected a '
            'floating-point map with channels last, (..., C).'
        )
    matrices = w_HC.ndim == w_OH.ndim == 2
    if not matrices or w_HC.shape[1] != x_BSC.shape[-1] or w_OH.shape[1] != len(w_HC):
        raise ValueError(
            f'w_HC has shape {tuple(w_HC.shape)} and w_OH {tuple(w_OH.shape)}; expected '
            f'(H, {x_BSC.shape[-1]}) and (O, H) for x_BSC of shape {tuple(x_BSC.shape)}.'
        )
    for name, bias, length in (('b_H', b_H, len(w_HC)), ('b_O', b_O, len(w_OH))):
        if bias.shape != (length,):
            raise ValueError(f'{name} has shape {tuple(bias.shape)}; expected ({length},).')
    for name, tensor in (('w_HC', w_HC), ('b_H', b_H), ('w_OH', w_OH), ('b_O', b_O)):
        if tensor.device != x_BSC.device:
            raise ValueError(
                f'{name} is on {tensor.device}, x_BSC on {x_BSC.device}; move them to one device.'
            )


def mlp(
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    b_O: Tensor,
    *,
    backend: str = 'auto',
) -> Tensor:
    """``gelu(x @ w_HC.T + b_H) @ w_OH.T + b_O`` with the exact (erf) GELU.

    Sums and the GELU are in float32, also in half precision; the gradients of the parameters add
    their parts in a fixed order, so that a step repeats bit for bit. Under autocast everything is
    cast to the autocast dtype. float32 products are exact, never TF32, in the kernels; the
    framework's follow its own settings. A second derivative is not defined.

    Args:
        x_BSC: ``(..., C)``; contiguous, else it is copied.
        w_HC: First matrix.
        b_H: Its bias.
        w_OH: Second matrix.
        b_O: Its bias.
        backend: ``'auto'``, or a name of its rows in ``dispatch.BACKENDS``.

    Returns:
        ``y_BSO``, contiguous, in the dtype of ``x_BSC`` or of autocast.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or the backend cannot run here.
    """
    _check(x_BSC, w_HC, b_H, w_OH, b_O)
    return _forward(x_BSC, w_HC, b_H, w_OH, b_O, backend)


def mlp_add(
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    b_O: Tensor,
    add_BSO: Tensor,
    *,
    backend: str = 'auto',
) -> Tensor:
    """``add + mlp(x)`` in one pass, for inference: no gradient is recorded.

    Products are in the dtype of the parameters; ``x`` is rounded to it on chip. With a float32
    residual stream as ``x`` and ``add``, nothing else of the branch is ever in memory.

    Args:
        x_BSC: ``(..., C)``, of any dtype.
        w_HC: As for :func:`mlp`.
        b_H: As for :func:`mlp`.
        w_OH: As for :func:`mlp`.
        b_O: As for :func:`mlp`.
        add_BSO: ``(..., O)``, of any dtype.
        backend: As for :func:`mlp`.

    Returns:
        Contiguous map in the shape and dtype of ``add_BSO``.

    Raises:
        ValueError: As for :func:`mlp`, or a gradient is wanted.
    """
    tensors = (x_BSC, w_HC, b_H, w_OH, b_O, add_BSO)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ValueError('mlp_add records no gradient; call it under torch.no_grad(), or use mlp.')
    _check(x_BSC, w_HC, b_H, w_OH, b_O)
    shape = (*x_BSC.shape[:-1], w_OH.shape[0])
    if add_BSO.shape != shape or add_BSO.device != x_BSC.device:
        raise ValueError(
            f'add_BSO has shape {tuple(add_BSO.shape)} on {add_BSO.device}; expected '
            f'{tuple(shape)} on {x_BSC.device}.'
        )
    return _forward_add(*tensors, backend)
