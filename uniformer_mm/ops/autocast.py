# SPDX-License-Identifier: Apache-2.0
"""What the operators of this package do under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

KEYS = {'cuda': 'AutocastCUDA', 'cpu': 'AutocastCPU'}


def autocast_dtype(device_type: str) -> torch.dtype:
    """The dtype that autocast, which is on, gives matrix products on a device."""
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        return torch.get_autocast_dtype(device_type)
    older = {'cuda': torch.get_autocast_gpu_dtype, 'cpu': torch.get_autocast_cpu_dtype}
    return older[device_type]()


def _rule(device_type: str, operator: Callable[..., Tensor], casts: int) -> Callable[..., Tensor]:
    below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEYS[device_type]))

    def rule(*arguments: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(below):
            if arguments[0].dtype is not torch.float64:
                dtype = autocast_dtype(device_type)
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
