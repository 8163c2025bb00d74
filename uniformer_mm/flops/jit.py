# SPDX-License-Identifier: Apache-2.0
"""Attention in a recorded graph (TorchScript), for the counters that read those."""

from __future__ import annotations

import torch

from . import attention_macs

OPERATOR = 'aten::scaled_dot_product_attention'


def count_traced_attention(
    inputs: list[torch._C.Value], outputs: list[torch._C.Value]
) -> int:  # fvcore and mmengine call it with both
    """Multiply-adds of one call of the operator, from the recorded shapes."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return attention_macs(query, key, value)
