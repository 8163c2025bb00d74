# SPDX-License-Identifier: Apache-2.0
"""AdamW that updates all parameters in one kernel where the framework has such a kernel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import AdamW

from ..registry import OPTIMIZERS, register

# Choices of another implementation than the fused one.
CHOICES = ('fused', 'foreach', 'capturable', 'differentiable')


@register(OPTIMIZERS, name='FusedAdamW')
def fused_adamw(params: Iterable[Tensor] | Iterable[dict], **options) -> AdamW:
    """torch's ``AdamW``, fused unless told otherwise; elsewhere the framework's usual form.

    Without the fused kernel a step launches a dozen kernels for each group of parameters, which
    costs the host more than the GPU. The same formula; results differ by rounding.

    Args:
        params: Parameters, or groups of them, as for any optimizer.
        **options: Arguments of ``torch.optim.AdamW``. With one of ``fused``, ``foreach``,
            ``capturable``, ``differentiable`` the choice is the caller's, torch's errors included.

    Returns:
        The optimizer; its checkpoints are those of ``torch.optim.AdamW``.
    """
    groups = list(params)
    fused = not any(name in options for name in CHOICES) and has_fused_kernel(groups)
    return AdamW(groups, **options, **({'fused': True} if fused else {}))


def has_fused_kernel(groups: list[Tensor] | list[dict]) -> bool:
    """Whether the framework can update all of ``groups`` fused: on a CPU from torch 2.4 on."""
    members = (group['params'] if isinstance(group, dict) else group for group in groups)
    tensors = [
        tensor
        for member in members
        for tensor in ([member] if isinstance(member, Tensor) else member)
    ]
    if not all(tensor.is_floating_point() for tensor in tensors):
        return False
    return all(_device_has_kernel(device) for device in {tensor.device for tensor in tensors})


def _device_has_kernel(device: torch.device) -> bool:
    """Asked of the optimizer itself, which refuses devices that it has no kernel for."""
    try:
        AdamW([torch.zeros(1, device=device)], fused=True)
    except RuntimeError:
        return False
    return True
