# SPDX-License-Identifier: Apache-2.0
"""The blocks on a CPU.

In inference a BatchNorm is folded into the matrix after it, ``x + dwconv(x)`` is one convolution,
and the MLP works on pieces of the map that stay in the cache. With gradients everything is plain
but the depthwise convolutions, whose gradients PyTorch computes as those of dense ones.
Maps are ``(B, *S, C)`` here, ``N`` positions, ``H`` hidden units of an MLP.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..layers import (
    Attention,
    join_windows,
    map_to_frames,
    map_to_pixels,
    pixels_to_frames,
    split_windows,
    to_map,
    to_tokens,
)
from ..ops import depthwise_conv
from ..ops.autocast import autocast_dtype
from ..ops.cpu import cpu_has_avx512
from .fold import fold, running_affine

# Hidden elements of a piece. With oneDNN's fused matmul 1 MiB in float32, half of the second-level
# cache of a server core; PyTorch's own wants more rows, so 4 MiB, a share of the third level.
PIECE = {'fused': 1 << 18, 'plain': 1 << 20}


def depthwise(conv: nn.Module, x: Tensor, residual: bool = False) -> Tensor:
    """``conv(x)``, or ``x + conv(x)``, for a depthwise convolution. Shape: ``(B, C, *S)``."""
    adds = residual and autocast_dtype(x) in (None, x.dtype)
    y = depthwise_conv(x.movedim(1, -1), conv.weight, conv.bias, residual=adds).movedim(-1, 1)
    return x + y if residual and not adds else y


def local_block(block: nn.Module, x: Tensor) -> Tensor:
    """A convolution block. Shape: ``(B, C, *S) -> (B, C, *S)``."""
    x = depthwise(block.pos_embed, x, residual=True)
    if torch.is_grad_enabled() or block.training:
        mixed = depthwise(block.attn, block.conv1(block.norm1(x)))
        x = block.add(x, block.conv2(mixed), block.gamma_1)
        return block.add(x, block.mlp(block.norm2(x)), block.gamma_2)
    x = x.movedim(1, -1)
    mixed = linear(x, *folded(block.norm1, block.conv1)).movedim(-1, 1)
    mixed = depthwise(block.attn, mixed).movedim(1, -1)
    x = add(x, linear(mixed, *matrix(block.conv2)), block.gamma_1)
    hidden, output = folded(block.norm2, block.mlp.fc1), matrix(block.mlp.fc2)
    return add(x, mlp(x, *hidden, *output), block.gamma_2).movedim(-1, 1)


def attention_block(block: nn.Module, x: Tensor) -> Tensor:
    """A block with global, window or divided attention. Shape: ``(B, C, *S) -> (B, C, *S)``."""
    x = depthwise(block.pos_embed, x, residual=True)
    plain = torch.is_grad_enabled() or block.training
    run_attention = nn.Module.__call__ if plain else attention
    if hasattr(block, 't_attn'):
        tokens = _divided(block, x, run_attention)
    else:
        tokens = to_tokens(x, block.ndim)
        mixed = _windowed(block, block.norm1(tokens), x, run_attention)
        tokens = block.add(tokens, mixed, block.gamma_1)
    normed = block.norm2(tokens)
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    hidden = block.mlp(normed) if plain else mlp(normed, *matrix(fc1), *matrix(fc2))
    return to_map(block.add(tokens, hidden, block.gamma_2), x.shape, block.ndim)


def _windowed(block: nn.Module, tokens: Tensor, x: Tensor, run: Callable[..., Tensor]) -> Tensor:
    if block.window_size is None:
        return run(block.attn, tokens)
    windows = split_windows(tokens, x.shape, block.ndim, block.window_size)
    return join_windows(run(block.attn, windows), x.shape, block.ndim, block.window_size)


def _divided(block: nn.Module, x: Tensor, run: Callable[..., Tensor]) -> Tensor:
    pixels = map_to_pixels(x)
    pixels = block.add(pixels, run(block.t_attn, block.t_norm(pixels)))
    mixed = run(block.attn, block.norm1(pixels_to_frames(pixels, x.shape)))
    frames = block.add(map_to_frames(x), mixed, block.gamma_1)
    return frames.reshape(x.shape[0], -1, x.shape[1])


def attention(module: Attention, x: Tensor) -> Tensor:
    """Attention among the tokens of each row. Shape: ``(B, N, C) -> (B, N, C)``."""
    return linear(module.attend(linear(x, *matrix(module.qkv))), *matrix(module.proj))


def add(x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
    """``x + gamma * branch`` in evaluation. Shape: ``(B, *S, C)``."""
    return x + branch if gamma is None else x + gamma.flatten().to(x.dtype) * branch


def matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(O, I)`` and bias of a linear layer or 1x1 convolution."""
    return layer.weight.flatten(1), layer.bias


def folded(norm: nn.Module, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """:func:`matrix` of a layer after a BatchNorm in evaluation, in the layer's dtype."""
    weight, bias = fold(layer.weight, layer.bias, *running_affine(norm))
    return weight.to(layer.weight.dtype), bias.to(layer.bias.dtype)


def _has_fused_matmul(x: Tensor) -> bool:
    """Whether oneDNN's matmul with bias and GELU in one pass takes ``x``; it has no gradient.

    Without AVX-512 its GELU takes half as long as the matmul, and PyTorch's matmul is faster.
    """
    return (
        x.dtype is torch.float32
        and cpu_has_avx512()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
        and autocast_dtype(x) is None
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """``x W + b``, then a GELU (erf) if asked for; no gradient. Shape: ``(..., I) -> (..., O)``."""
    if _has_fused_matmul(x):
        epilogue = ('gelu', [], 'none') if gelu else ('none', [], '')
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *epilogue)
    y = F.linear(x, weight, bias)
    return torch.ops.aten.gelu_(y) if gelu else y


def mlp(x: Tensor, w_HC: Tensor, b_H: Tensor, w_OH: Tensor, b_O: Tensor) -> Tensor:
    """``gelu(x W_1 + b_1) W_2 + b_2`` without gradient. Shape: ``(..., C) -> (..., O)``.

    The hidden map is the network's largest: large ones are computed in pieces that stay in the
    cache and never need fresh memory.
    """
    hidden, fuses, dtype = w_HC.shape[0], _has_fused_matmul(x), autocast_dtype(x)
    rows = max(PIECE['fused' if fuses else 'plain'] // hidden, 1)
    if x[..., 0].numel() <= 2 * rows:
        return linear(linear(x, w_HC, b_H, gelu=True), w_OH, b_O)
    y = x.new_empty((*x.shape[:-1], w_OH.shape[0]), dtype=dtype)
    pieces = zip(x.flatten(0, -2).split(rows), y.flatten(0, -2).split(rows), strict=True)
    if fuses or dtype is not None:
        for x_NC, y_NO in pieces:
            y_NO.copy_(linear(linear(x_NC, w_HC, b_H, gelu=True), w_OH, b_O))
        return y
    memory_NH = x.new_empty((rows, hidden))
    for x_NC, y_NO in pieces:
        h_NH = torch.addmm(b_H, x_NC, w_HC.t(), out=memory_NH[: len(x_NC)])
        torch.addmm(b_O, torch.ops.aten.gelu_(h_NH), w_OH.t(), out=y_NO)
    return y
