# SPDX-License-Identifier: Apache-2.0
"""The MLP out of PyTorch's own operators. Names and shapes as in ``ops/mlp.py``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# The input of the GELU is kept: computing it again would cost a matmul, its output one pass.
KEEPS_HIDDEN = True


def hidden(x_BSC: Tensor, w_HC: Tensor, b_H: Tensor) -> Tensor:
    """``h_BSH``, what goes into the GELU."""
    return F.linear(x_BSC, w_HC, b_H)


def output(h_BSH: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """``y_BSO`` from what goes into the GELU."""
    return F.linear(F.gelu(h_BSH), w_OH, b_O)


def grads(
    grad_BSO: Tensor,
    x_BSC: Tensor,
    h_BSH: Tensor,
    w_HC: Tensor,
    w_OH: Tensor,
    needed: tuple[bool, bool, bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of the input and the four parameters, None for those that are not ``needed``."""
    x_NC, h_NH, grad_NO = (m.flatten(0, -2) for m in (x_BSC, h_BSH, grad_BSO))
    w_OH_grad = grad_NO.t() @ F.gelu(h_NH) if needed[3] else None
    b_O_grad = grad_NO.sum(0) if needed[4] else None
    x_grad = w_HC_grad = b_H_grad = None
    if any(needed[:3]):
        h_grad_NH = torch.ops.aten.gelu_backward(grad_NO @ w_OH, h_NH)
        w_HC_grad = h_grad_NH.t() @ x_NC if needed[1] else None
        b_H_grad = h_grad_NH.sum(0) if needed[2] else None
        x_grad = (h_grad_NH @ w_HC).view(x_BSC.shape) if needed[0] else None
    return x_grad, w_HC_grad, b_H_grad, w_OH_grad, b_O_grad


def forward(
    x_BSC: Tensor,
    w_HC: Tensor,
    b_H: Tensor,
    w_OH: Tensor,
    b_O: Tensor,
    add_BSO: Tensor | None = None,
) -> Tensor:
    """See ``ops/mlp.py``."""
    y_BSO = output(hidden(x_BSC.to(w_HC.dtype), w_HC, b_H), w_OH, b_O)
    return y_BSO if add_BSO is None else (add_BSO + y_BSO).to(add_BSO.dtype)


def input_grad(grad_BSO: Tensor, x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor) -> Tensor:
    """See ``ops/mlp.py``."""
    h_BSH = hidden(x_BSC, w_HC, b_H)
    return grads(grad_BSO, x_BSC, h_BSH, w_HC, w_OH, (True, *(False,) * 4))[0]


def weight_grad(
    grad_BSO: Tensor, x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, has_b_O: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``ops/mlp.py``."""
    h_BSH = hidden(x_BSC, w_HC, b_H)
    found = grads(grad_BSO, x_BSC, h_BSH, w_HC, w_OH, (False, *(True,) * 3, has_b_O))[1:]
    dtype = torch.promote_types(x_BSC.dtype, torch.float32)
    w_HC_grad, b_H_grad, w_OH_grad, b_O_grad = (g if g is None else g.to(dtype) for g in found)
    if b_O_grad is None:
        b_O_grad = w_OH_grad.new_empty(0)
    return w_HC_grad, b_H_grad, w_OH_grad, b_O_grad
