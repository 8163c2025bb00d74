# SPDX-License-Identifier: Apache-2.0
"""What the launches of all Triton kernels need to know of a device."""

from __future__ import annotations

import functools
from contextlib import nullcontext

import torch
from torch import Tensor

CPU_PROCESSORS = 1


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 in the interpreter."""
    if device.type != 'cuda':
        return CPU_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def on(device: torch.device) -> torch.cuda.device | nullcontext:
    """Kernels start on the current device, which need not be the tensors'."""
    if device.type != 'cuda' or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def power_of_two(n: int) -> int:
    """The smallest one that is not below ``n``; Triton's tiles have no other sizes."""
    return 1 << max(n - 1, 0).bit_length()


def float32(x: Tensor, *shape: int) -> Tensor:
    """Fresh memory beside ``x``."""
    return torch.empty(shape, dtype=torch.float32, device=x.device)
