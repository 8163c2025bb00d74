# SPDX-License-Identifier: Apache-2.0
"""Blocks of every kind on tiny maps, and one pass of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from uniformer_mm.fast import attention, local, verify
from uniformer_mm.models.blocks import DividedBlock, GlobalBlock, LocalBlock

# By name: the block, and the shape of its map. Windows of 2 and 3 pad a map of 3 x 4.
KINDS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    'local 2-D': (lambda **k: LocalBlock(2, 8, 2, **k), (2, 8, 3, 4)),
    'local 3-D': (lambda **k: LocalBlock(3, 8, 2, **k), (2, 8, 2, 3, 3)),
    'global 2-D': (lambda **k: GlobalBlock(2, 8, 4, 2, **k), (2, 8, 3, 4)),
    'global 3-D': (lambda **k: GlobalBlock(3, 8, 4, 2, **k), (2, 8, 2, 3, 3)),
    'window 2-D': (lambda **k: GlobalBlock(2, 8, 4, 2, window_size=2, **k), (2, 8, 3, 4)),
    'window 3-D': (lambda **k: GlobalBlock(3, 8, 4, 2, window_size=3, **k), (2, 8, 2, 3, 4)),
    'divided 3-D': (lambda **k: DividedBlock(3, 8, 4, 2, **k), (2, 8, 2, 3, 3)),
}


def build(
    kind: str, layer_scale: float | None = None, **options: float
) -> tuple[nn.Module, Tensor]:
    """A block with random parameters and statistics, in float64, and a map."""
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    block = make(layer_scale=layer_scale, **options).double()
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.4)
                if 'norm' in name and name.endswith('weight'):
                    tensor.add_(1)
                elif name.endswith('running_var'):
                    tensor.abs_().add_(0.5)
    x = torch.randn(shape, dtype=torch.float64) + 0.5
    return block, x.to(memory_format=getattr(torch, f'channels_last{"_3d" * (x.ndim == 5)}'))


def fused(block: nn.Module, x: Tensor) -> Tensor:
    """The block's Functions, on whatever implementation of the operations this device has."""
    is_local = isinstance(block, LocalBlock)
    return (local.local_block if is_local else attention.attention_block)(block, x)


def plain(block: nn.Module, x: Tensor) -> Tensor:
    """The block's own equations."""
    with verify.plain_form():
        return block(x)


def step(
    run: Callable[[nn.Module, Tensor], Tensor], block: nn.Module, x: Tensor
) -> dict[str, Tensor | None]:
    """Result, gradients and buffers of one pass with random numbers that always are the same."""
    torch.manual_seed(1)
    x = x.detach().clone().requires_grad_()
    y = run(block, x)
    cotangent = torch.randn(
        y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    block.zero_grad()
    (y * cotangent.to(y.dtype)).sum().backward()
    grads = {f'gradient of {name}': p.grad for name, p in block.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    return {'result': y.detach(), 'gradient of x': x.grad, **grads, **buffers}
