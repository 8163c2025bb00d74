# SPDX-License-Identifier: Apache-2.0
"""What the launches of all Triton kernels need to know of a device."""

from __future__ import annotations

import functools
from contextlib import nullcontext

import torch

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
