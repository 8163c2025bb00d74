# SPDX-License-Identifier: Apache-2.0
"""A network for inference alone, with fewer operations: what compilers and exporters should get.

BatchNorms and residual scales become part of the matrices beside them, and ``x + dwconv(x)`` one
convolution with 1 added to its centre tap. It is plain PyTorch and computes the same up to
rounding. Compilers fold a BatchNorm into the convolution before it, not into the one after it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..fast.door import changed
from ..fast.fold import fold, running_affine
from ..layers import to_map, to_tokens
from .blocks import GlobalBlock, LocalBlock
from .uniformer import UniFormer


class FoldedLocalBlock(nn.Module):
    """A convolution block in evaluation.

    Args:
        block: As it was built; its layers are copied.
    """

    def __init__(self, block: LocalBlock) -> None:
        super().__init__()
        self.pos_embed = with_residual(block.pos_embed)
        self.conv1 = after_norm(block.norm1, block.conv1)
        self.attn = copy.deepcopy(block.attn)
        self.conv2 = scaled(block.conv2, block.gamma_1)
        self.mlp = copy.deepcopy(block.mlp)
        self.mlp.fc1 = after_norm(block.norm2, block.mlp.fc1)
        self.mlp.fc2 = scaled(block.mlp.fc2, block.gamma_2)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, *S) -> (B, C, *S)``."""
        x = self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(x)))
        return x + self.mlp(x)


class FoldedGlobalBlock(GlobalBlock):
    """An attention block in evaluation, global or in windows.

    Args:
        block: As it was built; its layers are copied.
    """

    def __init__(self, block: GlobalBlock) -> None:
        nn.Module.__init__(self)
        self.ndim, self.window_size = block.ndim, block.window_size
        self.pos_embed = with_residual(block.pos_embed)
        self.norm1, self.norm2 = copy.deepcopy(block.norm1), copy.deepcopy(block.norm2)
        self.attn, self.mlp = copy.deepcopy(block.attn), copy.deepcopy(block.mlp)
        self.attn.proj = scaled(block.attn.proj, block.gamma_1)
        self.mlp.fc2 = scaled(block.mlp.fc2, block.gamma_2)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, *S) -> (B, C, *S)``."""
        x = self.pos_embed(x)
        tokens = to_tokens(x, self.ndim)
        tokens = tokens + self.attend(self.norm1(tokens), x.shape)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return to_map(tokens, x.shape, self.ndim)


FOLDED = {LocalBlock: FoldedLocalBlock, GlobalBlock: FoldedGlobalBlock}


def fold_for_inference(model: UniFormer) -> UniFormer:
    """A copy of a network with fewer operations, for inference.

    Blocks whose layers somebody hooked or replaced stay as they are, and so do those with divided
    attention and those of the lightweight archs.

    Args:
        model: A backbone or classifier in evaluation mode.

    Returns:
        The copy, in evaluation mode. It has other parameters, and no checkpoint goes into it.

    Raises:
        ValueError: The network is in training mode.
    """
    if model.training:
        raise ValueError(
            'the network is in training mode, whose BatchNorms cannot be folded; call model.eval().'
        )
    model = copy.deepcopy(model)
    for stage in range(model.num_stages):
        blocks = getattr(model, f'blocks{stage + 1}')
        for index, block in enumerate(blocks):
            kind = FOLDED.get(type(block))
            if kind is not None and changed(block) is None:
                blocks[index] = kind(block).eval()
    return model.requires_grad_(False)


@torch.no_grad()
def with_residual(conv: nn.Module) -> nn.Module:
    """The depthwise convolution that computes ``x + conv(x)``."""
    conv = copy.deepcopy(conv)
    conv.weight[(slice(None), 0, *(k // 2 for k in conv.kernel_size))] += 1
    return conv


@torch.no_grad()
def after_norm(norm: nn.Module, layer: nn.Module) -> nn.Module:
    """The layer that computes ``layer(norm(x))`` for a BatchNorm in evaluation."""
    return _with(layer, *fold(layer.weight, layer.bias, *running_affine(norm)))


@torch.no_grad()
def scaled(layer: nn.Module, gamma: Tensor | None) -> nn.Module:
    """The layer that computes ``gamma * layer(x)``."""
    if gamma is None:
        return copy.deepcopy(layer)
    scale = gamma.flatten()
    return _with(layer, layer.weight.flatten(1) * scale[:, None], layer.bias * scale)


def _with(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    layer = copy.deepcopy(layer)
    layer.weight.copy_(weight.view_as(layer.weight))
    layer.bias.copy_(bias)
    return layer
