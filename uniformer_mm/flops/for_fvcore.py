# SPDX-License-Identifier: Apache-2.0
"""fvcore's ``FlopCountAnalysis`` and ``ActivationCountAnalysis``."""

from __future__ import annotations

from fvcore.nn import flop_count

from .jit import OPERATOR, count_traced_attention

flop_count._DEFAULT_SUPPORTED_OPS.setdefault(OPERATOR, count_traced_attention)
