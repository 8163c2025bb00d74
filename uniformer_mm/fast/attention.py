# SPDX-License-Identifier: Apache-2.0
"""Blocks with global, window and divided attention as autograd Functions, for GPUs.

Attention itself stays PyTorch's ``scaled_dot_product_attention`` with PyTorch's own gradient, so a
block is a Function before it and one after it, divided attention has one more between its two. A
graph of its own inside one Function would cost a second run of the autograd engine per block, and
what it keeps would not be seen by hooks on saved tensors. Maps are ``(B, *S, C)`` here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor, nn

from ..layers import join_windows, split_windows
from ..ops.rows import Matrix
from .pieces import (
    Arrangement,
    Folded,
    Linear,
    Norm,
    add_linear_backward,
    add_linear_forward,
    add_mlp_backward,
    add_mlp_forward,
    affine_of,
    as_rows,
    branch_matrix,
    depthwise_backward,
    depthwise_forward,
    drop_factors,
    fold_weights,
    matmul_dtype,
    norm_linear_backward,
    norm_linear_forward,
    norm_matrix,
    norm_of,
    run,
    save,
    saved_by_pieces,
)

# Orders of the rows of a map ``(B, *S, C)``.


@functools.lru_cache(maxsize=64)
def _window_rows(
    shape: Size, window_size: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where rows of windows come from and go to, and which are padding.

    Remembered, because finding padding waits for a GPU.
    """
    B, length = shape[0], shape[2:].numel()
    one_channel = Size((B, 1, *shape[2:]))
    numbers = torch.arange(1, B * length + 1, device=device).view(B, length, 1)
    windows = split_windows(numbers, one_channel, len(shape) - 2, window_size)
    sources = windows.flatten()
    positions = torch.arange(len(sources), device=device).view(windows.shape)
    targets = join_windows(positions, one_channel, len(shape) - 2, window_size).flatten()
    missing = (sources == 0).nonzero().flatten()
    return (sources - 1).clamp(min=0), targets, missing if missing.numel() else None


def windows_of(x: Tensor, window_size: int) -> Arrangement:
    """Windows of a map ``x`` of shape ``(B, C, *S)``, one after the other."""
    sources, targets, padding = _window_rows(x.shape, window_size, x.device)

    def split(x_NC: Tensor) -> Tensor:
        windows_NC = x_NC.index_select(0, sources)
        return windows_NC if padding is None else windows_NC.index_fill_(0, padding, 0)

    return Arrangement(split, lambda windows_NC: windows_NC.index_select(0, targets), padding)


def pixels_of(x: Tensor) -> Arrangement:
    """The frames of each pixel of a map ``x`` of shape ``(B, C, T, H, W)``, one after the other."""
    B, T, S = x.shape[0], x.shape[2], x.shape[3] * x.shape[4]

    def swap(rows_NC: Tensor, first: int, second: int) -> Tensor:
        return rows_NC.view(B, first, second, rows_NC.shape[-1]).transpose(1, 2).flatten(0, 2)

    return Arrangement(lambda x_NC: swap(x_NC, T, S), lambda x_NC: swap(x_NC, S, T), None)


class Enter(NamedTuple):
    """What a pass of :class:`_Enter` is beside its tensors."""

    norm: Norm
    order: Arrangement | None
    qkv: Folded
    taps: Tensor | None


class _Enter(torch.autograd.Function):
    """From the block's input to the residual stream and to queries, keys and values."""

    @staticmethod
    def compute(
        keep: Callable[[tuple], None],
        keeps: bool,
        step: Enter,
        x: Tensor,
        pos_weight: Tensor,
        pos_bias: Tensor,
        gamma_n: Tensor,
        beta_n: Tensor,
        qkv_weight: Tensor,
        qkv_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The stream ``(B, *S, C)`` and the projections as rows; ``keep`` takes what is saved."""
        qkv = affine_of(step.norm, qkv_weight, qkv_bias, gamma_n, beta_n, keeps)
        keep(qkv)
        x_BSC = x.movedim(1, -1)
        copy = 'x' if keeps and pos_weight.requires_grad else ''
        x_BSC, _, saved = depthwise_forward(
            x_BSC, pos_weight, pos_bias, step.taps, True, step.qkv.matrix.dtype, copy
        )
        keep(saved)
        qkv_NO, saved = norm_linear_forward(
            as_rows(x_BSC), None, step.norm, step.qkv, qkv_bias, step.order
        )
        keep(saved)
        return x_BSC, qkv_NO

    @staticmethod
    def forward(ctx: Any, step: Enter, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[tuple] = []
        results = _Enter.compute(kept.append, True, step, *tensors)
        ctx.norm, ctx.order = step.norm, step.order
        save(ctx, kept)
        return results

    @staticmethod
    def backward(ctx: Any, stream_BSC: Tensor, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        qkv, s_pos, s_qkv = saved_by_pieces(ctx)
        norm, order = ctx.norm, ctx.order
        needs = ctx.needs_input_grad[1:]
        grad_NC, (qkv_w, qkv_b, n_g, n_b) = norm_linear_backward(
            grad_NO.contiguous(), as_rows(stream_BSC), s_qkv, norm, qkv, stream_BSC.dtype, order
        )
        x_BSC, pos_w, pos_b = depthwise_backward(
            grad_NC.view(stream_BSC.shape), s_pos, True, needs[0], any(needs[1:3])
        )
        x = None if x_BSC is None else x_BSC.movedim(-1, 1)
        return None, x, pos_w, pos_b, n_g, n_b, qkv_w, qkv_b


class Between(NamedTuple):
    """What a pass of :class:`_Between` is beside its tensors."""

    norm: Norm
    pixels: Arrangement
    factors: Tensor | None
    proj: Folded
    qkv: Folded


class _Between(torch.autograd.Function):
    """From attention over time to queries, keys and values of attention over space."""

    @staticmethod
    def compute(
        keep: Callable[[tuple], None],
        keeps: bool,
        step: Between,
        x_BSC: Tensor,
        heads_NC: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        gamma_n: Tensor,
        beta_n: Tensor,
        qkv_weight: Tensor,
        qkv_bias: Tensor,
    ) -> Tensor:
        """The projections as rows in the order of the map; ``keep`` takes what is saved."""
        norm, pixels, factors, f_proj, f_qkv = step
        proj = Linear(proj_weight, proj_bias, None)
        qkv = affine_of(norm, qkv_weight, qkv_bias, gamma_n, beta_n, keeps)
        keep(proj), keep(qkv)
        x_NC, _, saved = add_linear_forward(as_rows(x_BSC), pixels.join(heads_NC), f_proj, factors)
        keep(saved)
        qkv_NO, saved = norm_linear_forward(x_NC, None, norm, f_qkv, qkv_bias)
        keep(saved)
        return qkv_NO

    @staticmethod
    def forward(ctx: Any, step: Between, *tensors: Tensor) -> Tensor:
        kept: list[tuple] = []
        result = _Between.compute(kept.append, True, step, *tensors)
        ctx.norm, ctx.pixels = step.norm, step.pixels
        ctx.shape, ctx.dtype = tensors[0].shape, tensors[0].dtype
        save(ctx, kept)
        return result

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        proj, qkv, s_proj, s_qkv = saved_by_pieces(ctx)
        norm, pixels = ctx.norm, ctx.pixels
        grad_NC, (qkv_w, qkv_b, n_g, n_b) = norm_linear_backward(
            grad_NO.contiguous(), None, s_qkv, norm, qkv, ctx.dtype
        )
        heads_NC, (proj_w, proj_b, _) = add_linear_backward(grad_NC, s_proj, proj)
        stream = grad_NC.view(ctx.shape)
        return None, stream, pixels.split(heads_NC), proj_w, proj_b, n_g, n_b, qkv_w, qkv_b


class Leave(NamedTuple):
    """What a pass of :class:`_Leave` is beside its tensors."""

    norm: Norm
    order: Arrangement | None
    factors_1: Tensor | None
    factors_2: Tensor | None
    proj: Folded
    fc1: Folded
    fc2: Folded


class _Leave(torch.autograd.Function):
    """From the residual stream and the heads of attention to the block's result."""

    @staticmethod
    def compute(
        keep: Callable[[tuple], None],
        keeps: bool,
        step: Leave,
        x_BSC: Tensor,
        heads_NC: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        gamma_n: Tensor,
        beta_n: Tensor,
        fc1_weight: Tensor,
        fc1_bias: Tensor,
        fc2_weight: Tensor,
        fc2_bias: Tensor,
        gamma_1: Tensor | None,
        gamma_2: Tensor | None,
    ) -> Tensor:
        """The result ``(B, C, *S)``; ``keep`` takes what the pieces save."""
        norm, order, factors_1, factors_2, f_proj, f_fc1, f_fc2 = step
        proj, fc2 = Linear(proj_weight, proj_bias, gamma_1), Linear(fc2_weight, fc2_bias, gamma_2)
        fc1 = affine_of(norm, fc1_weight, fc1_bias, gamma_n, beta_n, keeps)
        keep(proj), keep(fc1), keep(fc2)
        heads_NC = heads_NC if order is None else order.join(heads_NC)
        x_NC, _, saved = add_linear_forward(as_rows(x_BSC), heads_NC, f_proj, factors_1)
        keep(saved)
        x_NC, saved = add_mlp_forward(x_NC, None, norm, f_fc1, f_fc2, factors_2, keeps)
        keep(saved)
        return x_NC.view(x_BSC.shape).movedim(-1, 1)

    @staticmethod
    def forward(ctx: Any, step: Leave, *tensors: Tensor | None) -> Tensor:
        kept: list[tuple] = []
        result = _Leave.compute(kept.append, True, step, *tensors)
        ctx.norm, ctx.order = step.norm, step.order
        save(ctx, kept)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        proj, fc1, fc2, s_proj, s_mlp = saved_by_pieces(ctx)
        grad_BSC = grad.movedim(1, -1)
        grad_NC, (fc1_w, fc1_b, n_g, n_b), (fc2_w, fc2_b, gamma_2) = add_mlp_backward(
            as_rows(grad_BSC), s_mlp, ctx.norm, fc1, fc2
        )
        heads_NC, (proj_w, proj_b, gamma_1) = add_linear_backward(grad_NC, s_proj, proj)
        if ctx.order is not None:
            heads_NC = ctx.order.split(heads_NC)
        return (
            *(None, grad_NC.view(grad_BSC.shape), heads_NC, proj_w, proj_b, n_g, n_b),
            *(fc1_w, fc1_b, fc2_w, fc2_b, gamma_1, gamma_2),
        )


def attention_block(block: nn.Module, x: Tensor) -> Tensor:
    """A block with attention. Shape: ``(B, C, *S) -> (B, C, *S)``."""
    dtype, divided = matmul_dtype(x), hasattr(block, 't_attn')
    B, length = x.shape[0], x.shape[2:].numel()
    order, samples, row = None, B, length
    if divided:
        order, samples, row = pixels_of(x), B * x.shape[2], length // x.shape[2]
    elif block.window_size is not None:
        order = windows_of(x, block.window_size)
        row = block.window_size**2 * (x.shape[2] if block.ndim == 3 else 1)

    norm, attn = (block.t_norm, block.t_attn) if divided else (block.norm1, block.attn)
    norms = norm_of(norm, x), norm_of(block.norm1, x), norm_of(block.norm2, x)
    with torch.no_grad():
        matrices = [
            norm_matrix(norms[0], norm, attn.qkv),
            branch_matrix(block.attn.proj, block.gamma_1),
            norm_matrix(norms[2], block.norm2, block.mlp.fc1),
            branch_matrix(block.mlp.fc2, block.gamma_2),
        ]
        if divided:
            matrices.append(branch_matrix(block.t_attn.proj))
            matrices.append(norm_matrix(norms[1], block.norm1, block.attn.qkv))
        (qkv, *leaving, t_proj, s_qkv), (taps,) = _folded(matrices, block.pos_embed, dtype)

    stream, qkv_NO = run(
        _Enter,
        Enter(norms[0], order, qkv, taps),
        x,
        *_parameters(block.pos_embed, norm, attn.qkv),
    )
    if divided:
        heads_NC = _attend(attn, qkv_NO, x.shape[2])
        factors = drop_factors(block.drop_path, x, B * row)
        if factors is not None:  # Of each pixel, for the rows of all its frames.
            factors = factors.view(B, 1, row).expand(B, x.shape[2], row).flatten()
        step = Between(norms[1], order, factors, t_proj, s_qkv)
        layers = block.t_attn.proj, block.norm1, block.attn.qkv
        qkv_NO = run(_Between, step, stream, heads_NC, *_parameters(*layers))
        order = None
    heads_NC = _attend(block.attn, qkv_NO, row)
    factors = (drop_factors(block.drop_path, x, n) for n in (samples, B))
    return run(
        _Leave,
        Leave(norms[2], order, *factors, *leaving),
        stream,
        heads_NC,
        *_parameters(block.attn.proj, block.norm2, block.mlp.fc1, block.mlp.fc2),
        block.gamma_1,
        block.gamma_2,
    )


def _folded(
    matrices: list[Matrix], conv: nn.Module, dtype: torch.dtype
) -> tuple[list[Folded | None], list[Tensor | None]]:
    """Six matrices, of which blocks without divided attention have no last two."""
    folded, taps = fold_weights(matrices, (conv,), dtype)
    return [*folded, *(None,) * (6 - len(folded))], taps


def _attend(attention: nn.Module, qkv_NO: Tensor, row: int) -> Tensor:
    """Attention among each ``row`` successive rows. Shape: ``(N, 3 C) -> (N, C)``."""
    return as_rows(attention.attend(qkv_NO.view(-1, row, qkv_NO.shape[-1])))


def _parameters(*layers: nn.Module) -> list[Tensor]:
    return [p for layer in layers for p in (layer.weight, layer.bias)]
