# SPDX-License-Identifier: Apache-2.0
"""ptflops: its ``pytorch`` backend counts layers by their exact type, ``aten`` operators."""

from __future__ import annotations

import torch
from ptflops.aten_ops import ATEN_OPS_MAPPING
from ptflops.pytorch_ops import MODULES_MAPPING
from torch import Tensor, nn

from ..layers import Attention
from ..models.hourglass import ClassAttention
from . import attention_layer_macs, attention_macs

_OPERATORS = ('flash_attention', 'flash_attention_for_cpu', 'efficient_attention')
_OPERATORS += ('cudnn_attention',)


def count_layer(attention: nn.Module, inputs: tuple[Tensor], output: object) -> None:
    """Add to the layer's counter, which stands for those of the layers below."""
    attention.__flops__ += attention_layer_macs(attention, inputs[0])


def count_operator(inputs: tuple, outputs: tuple) -> int:
    """Multiply-adds of one call, from query, key and value."""
    return attention_macs(*(tensor.shape for tensor in inputs[:3]))


for _kind in (Attention, ClassAttention):
    MODULES_MAPPING.setdefault(_kind, count_layer)
for _name in _OPERATORS:
    _operator = getattr(torch.ops.aten, f'_scaled_dot_product_{_name}', None)
    if _operator is not None:
        ATEN_OPS_MAPPING.setdefault(_operator, count_operator)
