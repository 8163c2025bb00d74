# SPDX-License-Identifier: Apache-2.0
"""``torch.compile`` of a network, with our depthwise convolution where that is the faster one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import CONV
from ..ops import depthwise_conv
from ..ops.tracing import is_exporting


def compile(model: nn.Module, **options: Any) -> nn.Module:
    """Compile a network in place: state-dict keys, checkpoints and wrappers stay as they are.

    What a compiler cannot make fast are depthwise convolutions of clips, whose gradients PyTorch
    computes on a CPU as those of dense ones, and all of them on a GPU: there they run as our
    operator, which the compiler takes as a whole.

    Args:
        model: A UniFormer, or a model with one inside.
        **options: Of ``torch.compile``, such as ``mode``, ``dynamic`` or ``fullgraph``.

    Returns:
        The model.
    """
    for module in model.modules():
        if is_depthwise(module) and 'forward' not in vars(module):
            # A partial, so that the model can be copied and pickled.
            module.forward = partial(depthwise_forward, module)
    model.compile(**options)
    return model


def is_depthwise(module: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution that keeps the size, as our operator does."""
    return (
        type(module) in CONV.values()
        and module.groups == module.in_channels == module.out_channels > 1
        and module.padding_mode == 'zeros'
        and all(n == 1 for n in (*module.stride, *module.dilation))
        and all(k % 2 for k in module.kernel_size)
        and tuple(module.padding) == tuple(k // 2 for k in module.kernel_size)
    )


def depthwise_forward(conv: nn.Module, x: Tensor) -> Tensor:
    """``conv(x)``, through our operator where it is the faster one. Shape: ``(B, C, *S)``."""
    is_clip = conv.weight.ndim == 5
    faster = x.is_cuda or (is_clip and torch.is_grad_enabled())
    if not faster or x.ndim != conv.weight.ndim or is_exporting():
        return type(conv).forward(conv, x)
    return depthwise_conv(x.movedim(1, -1), conv.weight, conv.bias).movedim(-1, 1)
