# SPDX-License-Identifier: Apache-2.0
"""``mmengine.analysis``, and with it ``get_flops`` of the toolboxes."""

from __future__ import annotations

from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import generic_activation_jit

from .jit import OPERATOR, count_traced_attention

complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(OPERATOR, count_traced_attention)
complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS.setdefault(OPERATOR, generic_activation_jit())
