# SPDX-License-Identifier: Apache-2.0
"""Autocast: the dtype it asks for, contexts without it, and what our operators do under it."""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

KEYS = {'cuda': 'AutocastCUDA', 'cpu': 'AutocastCPU'}


HALF = (torch.bfloat16, torch.float16)


def _dtype_on(device_type: str) -> torch.dtype:
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        return torch.get_autocast_dtype(device_type)
    older = {'cuda': torch.get_autocast_gpu_dtype, 'cpu': torch.get_autocast_cpu_dtype}
    return older[device_type]()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives matrix multiplications of ``x``; None where it is off.

    It leaves float64 tensors alone, and does not know the meta device.
    """
    if not isinstance(x, Tensor) or x.dtype is torch.float64 or x.is_meta:
        return None
    device = x.device.type
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        enabled = torch.is_autocast_enabled(device)
    elif device == 'cpu':
        enabled = torch.is_autocast_cpu_enabled()
    else:
        enabled = torch.is_autocast_enabled()
    return _dtype_on(device) if enabled else None


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context without autocast on the device of ``x``."""
    if not isinstance(x, Tensor) or x.is_meta:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def native_autocast(x: Tensor, dtypes: Container[torch.dtype]) -> AbstractContextManager:
    """A context that turns autocast off on a CPU that has no instructions for its dtype.

    DIFFERS: there PyTorch emulates them, five times slower than float32 and less exact.

    Args:
        x: The input of a network.
        dtypes: What the CPU multiplies, see :func:`~uniformer_mm.ops.cpu.cpu_multiplies`.
    """
    dtype = autocast_dtype(x)
    emulated = dtype in HALF and x.device.type == 'cpu' and dtype not in dtypes
    return without_autocast(x) if emulated else nullcontext()


def _rule(device_type: str, operator: Callable[..., Tensor], casts: int) -> Callable[..., Tensor]:
    below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEYS[device_type]))

    def rule(*arguments: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(below):
            if arguments[0].dtype is not torch.float64:
                dtype = _dtype_on(device_type)
                cast = (tensor.to(dtype) for tensor in arguments[:casts])
                arguments = (*cast, *arguments[casts:])
            return operator(*arguments)

    return rule


def register_autocast(
    library: torch.library.Library, name: str, operator: Callable[..., Tensor], casts: int
) -> None:
    """Let an operator take some of its arguments in the dtype of autocast; float64 stays.

    Args:
        library: Where the operator is defined.
        name: Its name there.
        operator: The operator.
        casts: How many of its first arguments, all of them tensors, are cast.
    """
    for device_type, key in KEYS.items():
        library.impl(name, _rule(device_type, operator, casts), key)
