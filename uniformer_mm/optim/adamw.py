# SPDX-License-Identifier: Apache-2.0
"""AdamW that updates all parameters in one kernel where PyTorch has such a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from ..ops.dispatch import torch_version
from ..registry import OPTIMIZERS, register

# Choices of another implementation than the fused one.
CHOICES = ('fused', 'foreach', 'capturable', 'differentiable')


@register(OPTIMIZERS)
class FusedAdamW(AdamW):
    """torch's ``AdamW``, fused unless told otherwise; elsewhere PyTorch's usual form.

    Without the fused kernel a step launches a dozen kernels for each group of parameters, which
    costs more CPU time than GPU time. The same update; results differ by rounding. Checkpoints are
    those of ``torch.optim.AdamW``, but the form is that of the run: torch would take it from the
    file, and one that changes under a loss scaler ends the run.

    Args:
        params: Parameters, or groups of them, as for any optimizer.
        **options: Arguments of ``torch.optim.AdamW``. With one of ``fused``, ``foreach``,
            ``capturable``, ``differentiable`` the choice is the caller's, torch's errors included.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], **options) -> None:
        groups = [_listed(group) for group in params]
        if not any(name in options for name in CHOICES) and has_fused_kernel(groups):
            options['fused'] = True
        super().__init__(groups, **options)

    def load_state_dict(self, state_dict: dict) -> None:
        """Take a checkpoint of any form of AdamW, and go on in one's own."""
        form = {name: self.defaults[name] for name in CHOICES}
        groups = [{**group, **form} for group in state_dict['param_groups']]
        super().load_state_dict({**state_dict, 'param_groups': groups})


def _listed(member: Any) -> Any:
    """A member of what optimizers take, with a group's parameters as a list.

    They may come from a generator, which can be gone through once only.
    """
    if not isinstance(member, dict) or isinstance(member['params'], (Tensor, set)):
        return member
    return {**member, 'params': list(member['params'])}


def has_fused_kernel(groups: list[Tensor] | list[dict]) -> bool:
    """Whether PyTorch can update all of ``groups`` fused: on a CPU from torch 2.4 on."""
    members = [group['params'] if isinstance(group, dict) else group for group in groups]
    leaves = [
        leaf for member in members for leaf in (member if isinstance(member, list) else [member])
    ]
    # torch 2.6 also takes pairs of a name and a parameter.
    tensors = [leaf if isinstance(leaf, Tensor) else leaf[1] for leaf in leaves]
    if not all(tensor.is_floating_point() for tensor in tensors):
        return False
    return all(_device_has_kernel(device) for device in {tensor.device for tensor in tensors})


def _device_has_kernel(device: torch.device) -> bool:
    """Asked of the optimizer itself, which refuses devices that it has no kernel for."""
    # There the kernel refuses gradients whose strides differ, even along axes of a single element.
    if device.type == 'cuda' and torch_version() < (2, 5):
        return False
    try:
        AdamW([torch.zeros(1, device=device)], fused=True)
    except RuntimeError:
        return False
    return True
