# SPDX-License-Identifier: Apache-2.0
"""The learning-rate schedule of timm's cosine scheduler, in closed form."""

from __future__ import annotations

import math

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from torch.optim import Optimizer

from ..registry import PARAM_SCHEDULERS, register


@register(PARAM_SCHEDULERS)
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up, then the tail of a cosine that began at step 0.

    At step s, with t = max(s - lag, 0)::

        warmup_lr + t * (lr - warmup_lr) / warmup                       t < warmup
        min_lr + (lr - min_lr) * (1 + cos(pi * t / total)) / 2          otherwise

    mmengine's schedulers multiply when they overlap, and its cosine ends at a non-zero minimum, so
    no pair of them gives this curve. Source: timm 0.4.12 ``CosineLRScheduler``; the lag of one
    epoch is that of image_classification/main.py, which steps with the finished epoch's index.

    Args:
        optimizer: The optimizer or its wrapper.
        total: Steps of the whole cosine.
        warmup: Steps of the warm-up.
        warmup_lr: Rate at t = 0.
        min_lr: Rate at t = ``total``.
        lag: Steps by which the schedule comes late.
        **kwargs: ``begin``, ``end``, ``last_step``, ``by_epoch``, ``verbose`` of mmengine's
            schedulers.

    Raises:
        ValueError: Step counts that do not fit together.
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        *,
        total: int,
        warmup: int,
        warmup_lr: float,
        min_lr: float,
        lag: int = 0,
        **kwargs,
    ) -> None:
        if not 0 <= warmup < total:
            raise ValueError(
                f'warmup={warmup!r} must be at least 0 and below total={total!r} steps.'
            )
        if lag < 0:
            raise ValueError(f'lag={lag!r} must not be negative.')
        self.total = total
        self.warmup = warmup
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        self.lag = lag
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> list[float]:
        t = min(max(self.last_step - self.lag, 0), self.total)
        if t < self.warmup:
            return [
                self.warmup_lr + t * (lr - self.warmup_lr) / self.warmup for lr in self.base_values
            ]
        cosine = (1 + math.cos(math.pi * t / self.total)) / 2
        return [self.min_lr + (lr - self.min_lr) * cosine for lr in self.base_values]
