# SPDX-License-Identifier: Apache-2.0
"""Everything about speed: other forms of a block that give the same result as its ``forward``."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.dispatch import why_not_triton
from . import attention, cpu, local
from .door import why_not

__all__ = ['attention_block', 'local_block', 'why_not']


def local_block(block: nn.Module, x: Tensor) -> Tensor:
    """A convolution block in the fastest form of the device. Shape: ``(B, C, *S)``."""
    form = local if why_not_triton(x.device, x.dtype) is None else cpu
    return form.local_block(block, x)


def attention_block(block: nn.Module, x: Tensor) -> Tensor:
    """An attention block in the fastest form of the device. Shape: ``(B, C, *S)``."""
    form = attention if why_not_triton(x.device, x.dtype) is None else cpu
    return form.attention_block(block, x)
