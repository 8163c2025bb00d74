# SPDX-License-Identifier: Apache-2.0
"""Functions on channels-last maps that several layers share.

Shapes as in ``layers.py``; ``H`` is the hidden width of an MLP. Each function has one meaning and
is free to compute it in another way where that is faster: without gradients on a CPU through
oneDNN's fused products, with gradients through formulas that keep fewer maps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..ops import mlp as mlp_operator
from ..ops.autocast import autocast_dtype as dtype_of_autocast
from ..ops.framework import cpu_has_avx512

if hasattr(torch.compiler, 'is_compiling'):  # torch 2.3
    is_compiling = torch.compiler.is_compiling
else:
    from torch._dynamo import is_compiling

# Hidden elements of a piece. With oneDNN's fused product 1 MiB in float32, half of the second-level
# cache of a server core; the framework's wants more rows, so 4 MiB, a share of the third level.
PIECE = {'fused': 1 << 18, 'plain': 1 << 20}


def _never() -> bool:
    return False


_is_exporting = getattr(torch.compiler, 'is_exporting', _never)  # torch 2.7


def leaves_the_package() -> bool:
    """Whether what is recorded runs, or is counted, where no operator of ours is known."""
    return torch.jit.is_tracing() or _is_exporting()


def is_recorded() -> bool:
    """Whether a compiler or a tracer (exporters, counters of operations) looks on.

    A compiler fuses plain operators by itself, and a tracer knows no others.
    """
    return is_compiling() or leaves_the_package()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives matrix products of ``x``; None where it is off or leaves it.

    float64 tensors it leaves alone, and it does not know the meta device.
    """
    device = x.device.type
    if x.dtype is torch.float64 or device == 'meta':
        return None
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        enabled = torch.is_autocast_enabled(device)
    elif device == 'cpu':
        enabled = torch.is_autocast_cpu_enabled()
    else:
        enabled = torch.is_autocast_enabled()
    return dtype_of_autocast(device) if enabled else None


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context without autocast on the device of ``x``."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def channels_last(layer: Callable[[Tensor], Tensor], x_BSC: Tensor) -> Tensor:
    """Apply a layer for ``x_BCS`` to the same memory: strides say where the channels lie."""
    return layer(x_BSC.movedim(-1, 1)).movedim(1, -1)


def _has_fused_product(x: Tensor) -> bool:
    """Whether oneDNN's product with bias, GELU and sum in one pass takes ``x`` here.

    It has no gradient. Without AVX-512 its GELU takes half as long as the product, and the
    framework's product is faster.
    """
    return (
        x.device.type == 'cpu'
        and x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and not is_recorded()
        # After the line above: a compiler cannot trace the question.
        and cpu_has_avx512()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
        and autocast_dtype(x) is None
    )


def linear(
    x_BSI: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    *,
    gelu: bool = False,
    add_BSO: Tensor | None = None,
) -> Tensor:
    """``add + gelu(x @ weight + bias)``, of which GELU and sum are optional.

    Args:
        x_BSI: A map.
        weight_OI: Matrix.
        bias_O: Bias, or None.
        gelu: Whether to apply an exact (erf) GELU.
        add_BSO: Added to the result, which then has the wider of both dtypes.

    Returns:
        ``y_BSO``.
    """
    if _has_fused_product(x_BSI) and not (gelu and add_BSO is not None):
        fused = torch.ops.mkldnn._linear_pointwise
        if add_BSO is not None and add_BSO.dtype is x_BSI.dtype:
            x_NI, add_NO = x_BSI.flatten(0, -2), add_BSO.flatten(0, -2)
            y_NO = fused.binary(x_NI, add_NO, weight_OI, bias_O, 'add')
            return y_NO.view(add_BSO.shape)
        if add_BSO is None:
            epilogue = ('gelu', [], 'none') if gelu else ('none', [], '')
            return fused(x_BSI, weight_OI, bias_O, *epilogue)
    y_BSO = F.linear(x_BSI, weight_OI, bias_O)
    if gelu:
        in_place = not torch.is_grad_enabled() and not is_recorded()
        y_BSO = torch.ops.aten.gelu_(y_BSO) if in_place else F.gelu(y_BSO)
    return y_BSO if add_BSO is None else add_BSO + y_BSO


def mlp(x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """``gelu(x @ w_HC + b_H) @ w_OH + b_O`` in autocast's dtype, or that of ``x``.

    A second derivative is not defined outside torch.compile.
    """
    if not torch.is_grad_enabled() or is_recorded():
        return linear(linear(x_BSC, w_HC, b_H, gelu=True), w_OH, b_O)
    dtype = autocast_dtype(x_BSC) or x_BSC.dtype
    with without_autocast(x_BSC):
        return mlp_operator(*(tensor.to(dtype) for tensor in (x_BSC, w_HC, b_H, w_OH, b_O)))


def mlp_in_pieces(x_BSC: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """:func:`mlp`, on a CPU without gradients in pieces.

    The hidden map is the network's largest. There it is worth going through it in pieces that stay
    in the cache and never need fresh memory.
    """
    hidden = w_HC.shape[0]
    fuses = _has_fused_product(x_BSC)
    rows = max(PIECE['fused' if fuses else 'plain'] // hidden, 1)
    if (
        is_recorded()
        or torch.is_grad_enabled()
        or x_BSC.device.type != 'cpu'
        or x_BSC[..., 0].numel() <= 2 * rows
    ):
        return mlp(x_BSC, w_HC, b_H, w_OH, b_O)
    dtype = autocast_dtype(x_BSC)
    y_BSO = x_BSC.new_empty((*x_BSC.shape[:-1], w_OH.shape[0]), dtype=dtype)
    pieces = zip(x_BSC.flatten(0, -2).split(rows), y_BSO.flatten(0, -2).split(rows), strict=True)
    if fuses or dtype is not None:
        for x_NC, y_NO in pieces:
            y_NO.copy_(mlp(x_NC, w_HC, b_H, w_OH, b_O))
        return y_BSO
    memory_NH = x_BSC.new_empty((rows, hidden))
    for x_NC, y_NO in pieces:
        h_NH = torch.addmm(b_H, x_NC, w_HC.t(), out=memory_NH[: len(x_NC)])
        torch.addmm(b_O, torch.ops.aten.gelu_(h_NH), w_OH.t(), out=y_NO)
    return y_BSO


def patches(
    x_BSC: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """The elements under each position of a kernel that does not overlap in space.

    Args:
        x_BSC: A map; what does not fill a kernel at the bottom and right is left out.
        kernel: Kernel in pixels (and frames).
        stride: Stride, equal to the kernel in space.
        padding: Zero padding in frames; 0 in space.

    Returns:
        ``x_BSK`` with K in the order (frame,) row, column, channel; one copy.
    """
    if len(kernel) == 3 and padding[0]:
        x_BSC = F.pad(x_BSC, (0,) * 6 + (padding[0],) * 2)
    if is_compiling():
        return _patches_by_tap(x_BSC, kernel, stride)
    return patch_view(x_BSC, kernel, stride).flatten(len(kernel) + 1)


def patch_view(x_BSC: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The map's own memory as patches: (frame,) row, column and channel as the last axes."""
    k_h, k_w = kernel[-2:]
    clip = len(kernel) == 3
    if clip:
        x_BSC = x_BSC.unfold(1, kernel[0], stride[0]).movedim(-1, 2)
    h, w = x_BSC.shape[-3] // k_h, x_BSC.shape[-2] // k_w
    x_BSC = x_BSC[..., : h * k_h, : w * k_w, :].unflatten(-2, (w, k_w)).unflatten(-4, (h, k_h))
    return x_BSC.permute((0, 1, 3, 5, 2, 4, 6, 7) if clip else (0, 1, 3, 2, 4, 5))


def _patches_by_tap(x_BSC: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """:func:`patches` for a compiler.

    Cutting the map to whole patches and reshaping it would make one program for maps that divide
    and another for those that do not.
    """
    counts = [(n - k) // s + 1 for n, k, s in zip(x_BSC.shape[1:-1], kernel, stride, strict=True)]
    taps = []
    for tap in itertools.product(*map(range, kernel)):
        at = [
            slice(first, first + (n - 1) * s + 1, s)
            for first, n, s in zip(tap, counts, stride, strict=True)
        ]
        taps.append(x_BSC[(slice(None), *at)])
    return torch.cat(taps, -1)


def fold_batch_norm(norm: nn.Module, weight_OI: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and bias that first normalise with the running statistics of ``norm``.

    Built anew in each call from what the parameters hold now, so nothing can go stale, and
    gradients reach all of them. Half precision is folded in float32.

    Args:
        norm: BatchNorm in evaluation mode over I channels.
        weight_OI: Matrix of the layer after it.
        bias_O: Its bias.

    Returns:
        A matrix and a bias of the same shapes and dtypes.
    """
    dtype = torch.promote_types(weight_OI.dtype, torch.float32)
    # Copies: a pass in training may move them before the backward pass of this one.
    copies = torch.is_grad_enabled()
    mean_I, var_I = (x.to(dtype, copy=copies) for x in (norm.running_mean, norm.running_var))
    scale_I = norm.weight.to(dtype) * torch.rsqrt(var_I + norm.eps)
    shift_I = torch.addcmul(norm.bias.to(dtype), mean_I, scale_I, value=-1)
    weight = weight_OI.to(dtype)
    bias = bias_O.to(dtype) + (weight * shift_I).sum(1)
    return (weight * scale_I).to(weight_OI.dtype), bias.to(bias_O.dtype)
