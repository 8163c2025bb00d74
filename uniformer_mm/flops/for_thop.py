# SPDX-License-Identifier: Apache-2.0
"""thop, which counts layers by their exact type."""

from __future__ import annotations

from thop.profile import register_hooks
from torch import Tensor, nn

from ..layers import Attention
from ..models.hourglass import ClassAttention
from . import attention_layer_macs


def count_attention(attention: nn.Module, inputs: tuple[Tensor], output: object) -> None:
    """Set the layer's counter; thop does not look at the layers below one that has its own."""
    attention.total_ops += attention_layer_macs(attention, inputs[0])


for _kind in (Attention, ClassAttention):
    register_hooks.setdefault(_kind, count_attention)
