# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of the weights that is kept beside the model, not in its place."""

from __future__ import annotations

from mmengine.hooks import EMAHook

from ..registry import HOOKS, register


@register(HOOKS)
class TrackedEMAHook(EMAHook):
    """Track the moving average and save it, but evaluate and publish the raw model.

    mmengine's hook evaluates the averaged weights and writes them as ``state_dict``. Here
    ``state_dict`` is the trained model and ``ema_state_dict`` the average (keys ``module.*``), as
    in the official image script, which never evaluates its average.
    Source: image_classification/main.py, engine.py.

    DIFFERS: the average starts from the weights after the first step, timm's from those before it.

    Args:
        ema_type: Class of the average, see mmengine's ``EMAHook``.
        strict_load: Whether the average must hold every key when training resumes.
        begin_iter: First iteration that is averaged.
        begin_epoch: First epoch that is averaged.
        **kwargs: Arguments of the average: ``momentum`` (1 - decay), ``update_buffers``, ...
    """

    def _swap_ema_parameters(self) -> None:
        """Leave model and average where they are around an evaluation."""

    def _swap_ema_state_dict(self, checkpoint: dict) -> None:
        """Leave model and average where they are in a checkpoint."""
