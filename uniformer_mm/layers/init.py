# SPDX-License-Identifier: Apache-2.0
"""Official initialisation. Source: Sense-X/UniFormer @52a0415, ``_init_weights``."""

from __future__ import annotations

import torch
from torch import nn


def init_weights(module: nn.Module) -> None:
    """Initialise one layer; convolutions and BatchNorm keep PyTorch's own.

    Linear: truncated normal of std 0.02, zero bias. LayerNorm: one and zero.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def residual_scale(shape: tuple[int, ...], value: float | None) -> nn.Parameter | None:
    """Layer-scale parameter of ``shape`` filled with ``value``; None if there is none."""
    return None if value is None else nn.Parameter(torch.full(shape, value))
