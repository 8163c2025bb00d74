# SPDX-License-Identifier: Apache-2.0
"""Softmax attention that can be differentiated as often as one likes.

PyTorch's fused attention has no second derivative and no forward-mode derivative (2.14).
"""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .tracing import is_compiling, is_exporting


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(D)) v`` in operations that have all derivatives."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Fused attention; explicit where a derivative is asked for that the fused one has not.

    Shape: ``(B, M, N, D)`` each.
    """
    # A recorded network holds PyTorch's operator, which its readers know.
    if isinstance(q, torch.fx.Proxy) or is_compiling() or is_exporting():
        return F.scaled_dot_product_attention(q, k, v)
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return explicit_attention(q, k, v)
    y = F.scaled_dot_product_attention(q, k, v)
    # Of the class: on the node itself the question would unpack what was saved.
    if hasattr(type(y.grad_fn), '_saved_query'):
        y.grad_fn.register_hook(_differentiable)
    return y


def _differentiable(grads: tuple, upstream: tuple) -> tuple | None:
    """Replace the gradients of fused attention by those of the explicit form, under create_graph.

    After the backward pass of its node; what that has saved is taken from there, so that nothing
    else holds it (activation checkpointing, offloading).
    """
    if not torch.is_grad_enabled():
        return None
    node = torch._C._current_autograd_node()
    saved = (node._saved_query, node._saved_key, node._saved_value)
    wanted = [x for x, grad in zip(saved, grads, strict=True) if grad is not None]
    found = iter(
        torch.autograd.grad(explicit_attention(*saved), wanted, upstream[0], create_graph=True)
    )
    return tuple(None if grad is None else next(found) for grad in grads)
