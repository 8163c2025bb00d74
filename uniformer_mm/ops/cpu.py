# SPDX-License-Identifier: Apache-2.0
"""What the processor of this machine can do."""

from __future__ import annotations

import functools

import torch

# What tells that a processor multiplies matrices of a dtype: AVX512-BF16, AMX.
_CHECKS = {
    torch.bfloat16: ('_is_avx512_bf16_supported', '_is_amx_tile_supported'),
    torch.float16: ('_is_amx_fp16_supported',),
}


@functools.cache
def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for matrix multiplication in half precision."""
    return any(getattr(torch.cpu, check, bool)() for check in _CHECKS[dtype])


@functools.cache
def cpu_has_avx512() -> bool:
    """Whether PyTorch uses vectors of 512 bits on this processor."""
    return torch.backends.cpu.get_cpu_capability().startswith('AVX512')
