# SPDX-License-Identifier: Apache-2.0
"""The official learning-rate schedules with a warm-up and a cosine, in closed form."""

from __future__ import annotations

import math

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF
from torch.optim import Optimizer

from ..checks import check_bool, is_number
from ..registry import PARAM_SCHEDULERS, register

# Arguments that count steps.
STEPS = ('total', 'warmup', 'lag', 'cosine_begin')


def _check_steps(**steps: float) -> None:
    for name, value in steps.items():
        if not is_number(value):
            raise ValueError(f'{name}={value!r} must be a number of steps, without quotes.')


@register(PARAM_SCHEDULERS)
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up, then a cosine from the base rate lr to a minimum.

    At step s, with t = max(s - lag, 0) and b = ``cosine_begin``::

        cosine(t) = min_lr + (lr - min_lr) * (1 + cos(pi * (t - b) / (total - b))) / 2
        warmup_lr + t * (lr - warmup_lr) / warmup                       t < warmup
        cosine(t)                                                       otherwise

    With ``multiply_warmup`` the warm-up scales the cosine, which decays meanwhile::

        cosine(t) * (warmup_lr + t * (lr - warmup_lr) / warmup) / lr    t < warmup

    mmengine's linear warm-up is relative to lr and one step short, its schedulers multiply when
    they overlap, and its recursive cosine with a minimum above 0 does not bear that. Sources, with
    the settings that give them: timm 0.4.12 ``CosineLRScheduler`` (the defaults; ``lag=1`` is
    image_classification/main.py, which steps with the finished epoch's index); PySlowFast
    ``lr_policy.py`` with ``COSINE_AFTER_WARMUP`` (``cosine_begin=warmup``, per iteration); mmcv 1.x
    ``lr_updater.py`` (``multiply_warmup=True``, per iteration).

    Args:
        optimizer: The optimizer or its wrapper.
        total: Step at which the cosine ends.
        warmup: Steps of the warm-up.
        warmup_lr: Rate at t = 0.
        min_lr: Rate at t = ``total``.
        lag: Steps by which the schedule comes late.
        cosine_begin: Step at which the cosine begins, at lr.
        multiply_warmup: Whether the warm-up multiplies the cosine.
        **kwargs: ``begin``, ``end``, ``last_step``, ``by_epoch``, ``verbose`` of mmengine's
            schedulers.

    Raises:
        ValueError: Steps or rates that are no numbers, or step counts that do not fit together.
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
        cosine_begin: int = 0,
        multiply_warmup: bool = False,
        **kwargs,
    ) -> None:
        _check_steps(total=total, warmup=warmup, lag=lag, cosine_begin=cosine_begin)
        for name, rate in (('warmup_lr', warmup_lr), ('min_lr', min_lr)):
            if not is_number(rate) or rate < 0:
                raise ValueError(f'{name}={rate!r} must be a number of at least 0.')
        if not 0 <= warmup < total:
            raise ValueError(
                f'warmup={warmup!r} must be at least 0 and below total={total!r} steps.'
            )
        if lag < 0:
            raise ValueError(f'lag={lag!r} must not be negative.')
        if not 0 <= cosine_begin <= warmup:
            raise ValueError(
                f'cosine_begin={cosine_begin!r} must be at least 0 and at most warmup={warmup!r} '
                'steps.'
            )
        self.total = total
        self.warmup = warmup
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        self.lag = lag
        self.cosine_begin = cosine_begin
        self.multiply_warmup = check_bool('multiply_warmup', multiply_warmup)
        super().__init__(optimizer, **kwargs)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args,
        epoch_length: int,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        **kwargs,
    ) -> WarmupCosineLR:
        """The schedule per iteration whose steps are given in epochs (``convert_to_iter_based``).

        Args:
            *args: The optimizer.
            epoch_length: Iterations of an epoch.
            begin: First epoch.
            end: Epoch after the last one.
            by_epoch: Must be True.
            **kwargs: The constructor's other arguments.

        Raises:
            ValueError: ``by_epoch`` False, or steps that are no numbers.
        """
        if not by_epoch:
            raise ValueError('by_epoch=False: the steps are in iterations already; leave it out.')
        steps = {name: kwargs[name] for name in STEPS if name in kwargs}
        # Here, or the message would give a multiple.
        _check_steps(**steps)
        kwargs |= {name: value * epoch_length for name, value in steps.items()}
        end = end if end == INF else end * epoch_length
        return cls(*args, begin=begin * epoch_length, end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        t = min(max(self.last_step - self.lag, 0), self.total)
        phase = math.pi * (t - self.cosine_begin) / (self.total - self.cosine_begin)
        share = (1 + math.cos(phase)) / 2
        return [
            self._rate(lr, t, self.min_lr + (lr - self.min_lr) * share) for lr in self.base_values
        ]

    def _rate(self, lr: float, t: int, cosine: float) -> float:
        if t >= self.warmup:
            return cosine
        linear = self.warmup_lr + t * (lr - self.warmup_lr) / self.warmup
        return cosine * linear / lr if self.multiply_warmup else linear
