# SPDX-License-Identifier: Apache-2.0
"""The convolution block as one autograd Function, for GPUs. Maps are ``(B, *S, C)`` here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .pieces import (
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


class Pass(NamedTuple):
    """What a pass of the block is beside its tensors."""

    norm1: Norm
    norm2: Norm
    factors_1: Tensor | None
    factors_2: Tensor | None
    folded: Sequence[Folded]
    taps: Sequence[Tensor | None]


class _LocalBlock(torch.autograd.Function):
    @staticmethod
    def compute(
        keep: Callable[[tuple], None],
        keeps: bool,
        step: Pass,
        x: Tensor,
        pos_weight: Tensor,
        pos_bias: Tensor,
        gamma_n1: Tensor,
        beta_n1: Tensor,
        conv1_weight: Tensor,
        conv1_bias: Tensor,
        attn_weight: Tensor,
        attn_bias: Tensor,
        conv2_weight: Tensor,
        conv2_bias: Tensor,
        gamma_n2: Tensor,
        beta_n2: Tensor,
        fc1_weight: Tensor,
        fc1_bias: Tensor,
        fc2_weight: Tensor,
        fc2_bias: Tensor,
        gamma_1: Tensor | None,
        gamma_2: Tensor | None,
    ) -> Tensor:
        """The block; ``keep`` takes what its pieces save."""
        f_conv1, f_conv2, f_fc1, f_fc2 = step.folded
        pos_taps, attn_taps = step.taps
        dtype = f_conv1.matrix.dtype
        conv1 = affine_of(step.norm1, conv1_weight, conv1_bias, gamma_n1, beta_n1, keeps)
        fc1 = affine_of(step.norm2, fc1_weight, fc1_bias, gamma_n2, beta_n2, keeps)
        conv2 = Linear(conv2_weight, conv2_bias, gamma_1)
        fc2 = Linear(fc2_weight, fc2_bias, gamma_2)
        keep(conv1), keep(fc1), keep(conv2), keep(fc2)

        copy = 'x' if keeps and pos_weight.requires_grad else 'y'
        x_BSC = x.movedim(1, -1)
        x_BSC, copy_BSC, saved = depthwise_forward(
            x_BSC, pos_weight, pos_bias, pos_taps, True, dtype, copy
        )
        keep(saved)
        x_NC, copy_NC = as_rows(x_BSC), None if copy_BSC is None else as_rows(copy_BSC)
        a_NC, saved = norm_linear_forward(x_NC, copy_NC, step.norm1, f_conv1, conv1_bias)
        keep(saved)
        a_BSC, _, saved = depthwise_forward(
            a_NC.view(x_BSC.shape), attn_weight, attn_bias, attn_taps
        )
        keep(saved)
        x_NC, copy_NC, saved = add_linear_forward(
            x_NC, as_rows(a_BSC), f_conv2, step.factors_1, copies=True
        )
        keep(saved)
        x_NC, saved = add_mlp_forward(
            x_NC, copy_NC, step.norm2, f_fc1, f_fc2, step.factors_2, keeps
        )
        keep(saved)
        return x_NC.view(x_BSC.shape).movedim(-1, 1)

    @staticmethod
    def forward(ctx: Any, step: Pass, *tensors: Tensor | None) -> Tensor:
        kept: list[tuple] = []
        y = _LocalBlock.compute(kept.append, True, step, *tensors)
        # Without statistics, which the backward pass does not read.
        ctx.norms = step.norm1._replace(running=None), step.norm2._replace(running=None)
        save(ctx, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        conv1, fc1, conv2, fc2, s_pos, s_conv1, s_attn, s_conv2, s_mlp = saved_by_pieces(ctx)
        norm1, norm2 = ctx.norms
        needs = ctx.needs_input_grad[1:]
        grad_BSC = grad.movedim(1, -1)
        shape, grad_NC = grad_BSC.shape, as_rows(grad_BSC)

        grad_NC, (fc1_w, fc1_b, n2_g, n2_b), (fc2_w, fc2_b, gamma_2) = add_mlp_backward(
            grad_NC, s_mlp, norm2, fc1, fc2
        )
        a_NC, (conv2_w, conv2_b, gamma_1) = add_linear_backward(grad_NC, s_conv2, conv2)
        a_BSC, attn_w, attn_b = depthwise_backward(a_NC.view(shape), s_attn)
        grad_NC, (conv1_w, conv1_b, n1_g, n1_b) = norm_linear_backward(
            as_rows(a_BSC), grad_NC, s_conv1, norm1, conv1, grad_NC.dtype
        )
        x_BSC, pos_w, pos_b = depthwise_backward(
            grad_NC.view(shape), s_pos, True, needs_x=needs[0], needs_weight=any(needs[1:3])
        )
        x = None if x_BSC is None else x_BSC.movedim(-1, 1)
        return (
            *(None, x, pos_w, pos_b, n1_g, n1_b, conv1_w, conv1_b, attn_w, attn_b),
            *(conv2_w, conv2_b, n2_g, n2_b, fc1_w, fc1_b, fc2_w, fc2_b, gamma_1, gamma_2),
        )


def local_block(block: nn.Module, x: Tensor) -> Tensor:
    """A convolution block. Shape: ``(B, C, *S) -> (B, C, *S)``."""
    norm1, norm2 = norm_of(block.norm1, x), norm_of(block.norm2, x)
    factors = (drop_factors(block.drop_path, x, x.shape[0]) for _ in range(2))
    layers = (
        block.pos_embed,
        block.norm1,
        block.conv1,
        block.attn,
        block.conv2,
        block.norm2,
        block.mlp.fc1,
        block.mlp.fc2,
    )
    parameters = (p for layer in layers for p in (layer.weight, layer.bias))
    with torch.no_grad():
        matrices = (
            norm_matrix(norm1, block.norm1, block.conv1),
            branch_matrix(block.conv2, block.gamma_1),
            norm_matrix(norm2, block.norm2, block.mlp.fc1),
            branch_matrix(block.mlp.fc2, block.gamma_2),
        )
        folded, taps = fold_weights(matrices, (block.pos_embed, block.attn), matmul_dtype(x))
    step = Pass(norm1, norm2, *factors, folded, taps)
    return run(_LocalBlock, step, x, *parameters, block.gamma_1, block.gamma_2)
