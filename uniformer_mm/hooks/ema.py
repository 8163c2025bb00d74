# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of the weights that is kept beside the model, not in its place."""

from __future__ import annotations

import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from torch import Tensor, nn

from ..optim.tensor_groups import grouped
from ..registry import HOOKS, MODELS, register


@register(MODELS)
class ForeachMovingAverage(ExponentialMovingAverage):
    """mmengine's ``ExponentialMovingAverage``, all tensors in one operator.

    mmengine launches a kernel for each tensor, some hundreds in a step. Arguments, results and
    keys of the state dict are its own.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._due: list[tuple[Tensor, Tensor]] = []

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Note a pair of tensors that :meth:`update_parameters` averages at its end."""
        self._due.append((averaged_param, source_param))

    def update_parameters(self, model: nn.Module) -> None:
        """Let the average follow ``model`` by one step."""
        super().update_parameters(model)
        if not self._due:
            return
        for averages, sources in grouped(*zip(*self._due, strict=True)):
            torch._foreach_lerp_(averages, sources, self.momentum)
        self._due.clear()


@register(HOOKS)
class TrackedEMAHook(EMAHook):
    """Track the moving average and save it, but evaluate and publish the raw model.

    mmengine's hook evaluates the averaged weights and writes them as ``state_dict``. Here
    ``state_dict`` is the trained model and ``ema_state_dict`` the average (keys ``module.*``), as
    in the official image script, which never evaluates its average.
    Source: image_classification/main.py, engine.py.

    A checkpoint may be loaded before a run begins (``runner.load_checkpoint``, ``runner.resume``),
    when mmengine's hook has no average to fill and raises AttributeError.

    DIFFERS: the average starts from the weights after the first step, timm's from those before it.

    Args:
        ema_type: Class of the average, see mmengine's ``EMAHook``.
        **kwargs: ``strict_load`` (whether the average must hold every key when training resumes),
            ``begin_iter``, ``begin_epoch`` (first iteration or epoch that is averaged), and the
            arguments of the average: ``momentum`` (1 - decay), ``update_buffers``, ...
    """

    def __init__(self, ema_type: str = 'uniformer_mm.ForeachMovingAverage', **kwargs) -> None:
        super().__init__(ema_type, **kwargs)
        self._awaiting: dict | None = None

    def before_run(self, runner: Runner) -> None:
        """Make the average, a copy of the model as it is now, and fill it if it is resumed."""
        super().before_run(runner)
        if self._awaiting is not None:
            checkpoint, self._awaiting = self._awaiting, None
            super().after_load_checkpoint(runner, checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Fill the average, or keep what it is filled with until the run begins."""
        if hasattr(self, 'ema_model'):
            super().after_load_checkpoint(runner, checkpoint)
        elif runner._resume:
            self._awaiting = checkpoint
        # Else the run begins with a copy of the model that is being loaded.

    def _swap_ema_parameters(self) -> None:
        """Leave model and average where they are around an evaluation."""

    def _swap_ema_state_dict(self, checkpoint: dict) -> None:
        """Leave model and average where they are in a checkpoint."""
