# SPDX-License-Identifier: Apache-2.0
"""bfloat16 autocast on any device, with named modules kept in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._pytree import tree_map

from ..registry import OPTIM_WRAPPERS, register

# Names that wrappers put between a module and its parent.
WRAPPERS = ('module', '_fsdp_wrapped_module')


@register(OPTIM_WRAPPERS)
class BFloat16OptimWrapper(OptimWrapper):
    """Run the training step under bfloat16 autocast; parameters and their updates stay float32.

    bfloat16 has float32's range, so no loss is scaled. mmengine's ``AmpOptimWrapper(dtype=
    'bfloat16')`` does the same on a GPU, but refuses to run on the CPU, and some things in the
    toolboxes cannot take bfloat16 at all: scores that become NumPy arrays while training (mmaction2
    and mmpose measure accuracy so), mmcv's non-maximum suppression on the CPU, and its RoIAlign (no
    CUDA kernel; its boxes would be rounded to 8 bits besides). ``float32_modules`` names what must
    compute in float32::

        mmaction2    ('cls_head',)
        mmpose       ('head.final_layer',)
        mmdet        ('rpn_head.rpn_cls', 'rpn_head.rpn_reg',
                      'roi_head.bbox_roi_extractor', 'roi_head.mask_roi_extractor')

    In a cascade each stage has its extractors: ``'roi_head.bbox_roi_extractor.0'`` and so on.
    mmsegmentation and mmpretrain need none.

    Args:
        float32_modules: Names of modules of the model, as in ``named_modules()``. Their floating
            inputs are converted and autocast is off inside.
        **kwargs: Arguments of mmengine's ``OptimWrapper``.

    Raises:
        ValueError: In ``optim_context``, if the model has no module of a given name.
    """

    def __init__(self, *, float32_modules: Sequence[str] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        self.float32_modules = tuple(float32_modules)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a training step's forward pass.

        Raises:
            ValueError: See the class.
        """
        modules = [find_module(model, name) for name in self.float32_modules]
        device = next(model.parameters()).device.type
        with (
            super().optim_context(model),
            torch.autocast(device, torch.bfloat16),
            computing_in_float32(modules, device),
        ):
            yield


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module of a (wrapped) model by its name in the unwrapped one.

    Raises:
        ValueError: There is none.
    """
    modules = {
        '.'.join(part for part in found.split('.') if part not in WRAPPERS): module
        for found, module in model.named_modules()
    }
    if name not in modules:
        parent = name.rpartition('.')[0]
        near = sorted(n for n in modules if n and n.rpartition('.')[0] == parent)
        raise ValueError(
            f'{name!r} is not a module of the model; '
            + (f'{parent or "it"} has {near}.' if near else f'nor is {parent!r}.')
        )
    return modules[name]


@contextmanager
def computing_in_float32(modules: list[nn.Module], device: str) -> Iterator[None]:
    """Replace the modules' ``forward``, which heads call directly too, for the time being."""
    before = [vars(module).get('forward') for module in modules]
    for module in modules:
        module.forward = partial(_in_float32, module.forward, device)
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _in_float32(forward: Callable, device: str, *args, **kwargs):
    def convert(value):
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.float() if floating else value

    with torch.autocast(device, enabled=False):
        return forward(*tree_map(convert, args), **tree_map(convert, kwargs))
