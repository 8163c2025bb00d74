# SPDX-License-Identifier: Apache-2.0
"""``torch.utils.flop_counter.FlopCounterMode``, which knows the attention of GPUs only."""

from __future__ import annotations

import torch
from torch.utils import flop_counter

_ATEN = torch.ops.aten


def _register(like: str, cpu: str) -> None:
    """Count an operator of a CPU like that of a GPU, whose shapes come in the same places."""
    counted = flop_counter.flop_registry.get(getattr(_ATEN, like))
    operator = getattr(_ATEN, cpu, None)
    if counted is not None and operator is not None:
        flop_counter.flop_registry.setdefault(operator, counted)


_register('_scaled_dot_product_flash_attention', '_scaled_dot_product_flash_attention_for_cpu')
_register(
    '_scaled_dot_product_flash_attention_backward',
    '_scaled_dot_product_flash_attention_for_cpu_backward',
)
