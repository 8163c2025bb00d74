# SPDX-License-Identifier: Apache-2.0
"""Validation and tests in half precision, in either format and on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils._pytree import tree_map

from ..optim.bfloat16 import computing_in_float32, find_module
from ..registry import HOOKS, register

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@register(HOOKS)
class InferenceAutocastHook(Hook):
    """Run the steps of validation and test under autocast; training stays as it is.

    mmengine's loops know ``fp16=True`` and nothing else: no bfloat16, and no float32 for what
    cannot take half precision. Inside ``ValLoop(fp16=True)`` this hook's format holds.

    The step is replaced for one call at a time, so nothing stays behind after an error. What the
    evaluators get is float32: NumPy has no bfloat16. What becomes NumPy, meets mmcv's RoIAlign or
    its suppression within the model belongs into ``float32_modules``, as in
    :class:`~uniformer_mm.optim.BFloat16OptimWrapper`, which lists them by toolbox.

    Args:
        dtype: ``'bfloat16'`` or ``'float16'``.
        float32_modules: Names of modules of the model, as in ``named_modules()``. Their floating
            inputs are converted and autocast is off inside.

    Raises:
        ValueError: Another dtype. Before the run: the model has no module of a given name, or the
            framework no such autocast for its device.
    """

    # After hooks that could fail before the step.
    priority = 'LOWEST'

    def __init__(self, dtype: str = 'bfloat16', float32_modules: Sequence[str] = ()) -> None:
        if dtype not in DTYPES:
            raise ValueError(
                f'dtype={dtype!r} must be one of {sorted(DTYPES)}; for float32 leave the hook out.'
            )
        self.dtype = DTYPES[dtype]
        self.float32_modules = tuple(float32_modules)
        self._kept: list[nn.Module] = []

    def before_run(self, runner) -> None:
        """Find the modules and try the format.

        Raises:
            ValueError: See the class.
        """
        self._kept = [find_module(runner.model, name) for name in self.float32_modules]
        device = _device_of(runner.model)
        one = torch.ones(1, 1, device=device)
        with torch.autocast(device, self.dtype):
            found = (one @ one).dtype
        if found != self.dtype:
            raise ValueError(
                f'dtype={self.dtype} is no format of autocast on {device!r} in torch '
                f'{torch.__version__}; use the other format or leave the hook out.'
            )

    def before_val_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Let the next validation step run under autocast."""
        self._replace_once(runner.model, 'val_step')

    def before_test_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Let the next test step run under autocast."""
        self._replace_once(runner.model, 'test_step')

    def _replace_once(self, model: nn.Module, name: str) -> None:
        # The loops start an autocast of their own, on or off, right around the step: one that
        # begins before them would have no effect.
        before = vars(model).get(name)
        if getattr(before, 'func', None) == self._step:
            return
        setattr(model, name, partial(self._step, model, name, before, getattr(model, name)))

    def _step(
        self, model: nn.Module, name: str, before: Callable | None, step: Callable, batch: dict
    ) -> list:
        if before is None:
            delattr(model, name)
        else:
            setattr(model, name, before)
        device = _device_of(model)
        with _autocast(device, self.dtype), computing_in_float32(self._kept, device):
            return to_float32(step(batch))


@contextmanager
def _autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
    # Cast weights are kept until the outermost autocast ends, whatever format they have.
    torch.clear_autocast_cache()
    try:
        with torch.autocast(device, dtype):
            yield
    finally:
        torch.clear_autocast_cache()


def _device_of(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def to_float32(outputs: list | tuple | dict | BaseDataElement | torch.Tensor):
    """Outputs of a step with their half-precision tensors in float32, data samples in place."""

    def convert(value):
        if isinstance(value, BaseDataElement):
            value.set_data({name: to_float32(item) for name, item in value.items()})
        elif isinstance(value, torch.Tensor) and value.dtype in DTYPES.values():
            return value.float()
        return value

    return tree_map(convert, outputs)
