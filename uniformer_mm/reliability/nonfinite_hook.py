# SPDX-License-Identifier: Apache-2.0
"""A loss that is NaN or infinite ends the run, before days are spent on it."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook

from ..registry import HOOKS, register
from .loader import ResumableLoader

_ACTIONS = ('stop', 'skip')

# What the authors of UniFormer did and advise, and what is known of mixed precision.
ADVICE = (
    'What helps: a lower optim_wrapper.optimizer.lr or a longer warm-up; '
    "optim_wrapper.dtype='bfloat16' for 'float16'; with float16, attention in float32 (the "
    'uniformer_mm.Float32ModulesHook on the attention modules), as the authors advise; '
    'optim_wrapper.clip_grad=dict(max_norm=1).'
)


@register(HOOKS)
class NonFiniteLossHook(Hook):
    """Look at the loss of each iteration.

    Args:
        patience: Iterations in a row with a loss that is NaN or infinite, after which the run ends
            with exit status 1.
        action: ``'stop'`` lets the optimizer step, as mmengine does, and ends the run after
            ``patience`` iterations. ``'skip'`` leaves the weights alone in such an iteration, on
            all GPUs if one has it (which costs one synchronisation an iteration), counts it, and
            ends the run after ``patience`` in a row, too. It cannot be used with a wrapper of
            several optimizers or one that steps by itself.

    Raises:
        ValueError: Another ``action``, or ``patience`` below 1.
    """

    # After the logger has written the loss, before anything is saved.
    priority = 'LOW'

    def __init__(self, patience: int = 3, action: str = 'stop') -> None:
        if action not in _ACTIONS:
            raise ValueError(f'action={action!r} must be one of {", ".join(map(repr, _ACTIONS))}.')
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ValueError(f'patience={patience!r} must be a number of iterations from 1 on.')
        self.patience, self.action = patience, action
        self.in_a_row = 0
        self.skipped = 0

    def before_train(self, runner: Any) -> None:
        """Stand before the optimizer where bad iterations are skipped."""
        self.in_a_row = 0
        if self.action == 'skip':
            update = runner.optim_wrapper.update_params
            runner.optim_wrapper.update_params = _Sieve(update, runner.optim_wrapper)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count losses that are no numbers.

        Raises:
            SystemExit: There were ``patience`` in a row.
        """
        loss = (outputs or {}).get('loss')
        sieve = getattr(runner.optim_wrapper, 'update_params', None)
        bad = sieve.rejected if isinstance(sieve, _Sieve) else not _is_finite(loss)
        if not bad:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.skipped += self.action == 'skip'
        what = f'The loss of iteration {runner.iter + 1} is {_shown(loss)}'
        samples = _samples(runner, batch_idx)
        if self.in_a_row < self.patience:
            done = ', its update is skipped' if self.action == 'skip' else ''
            runner.logger.warning(
                f'{what}{done} ({self.in_a_row} of {self.patience} in a row). Samples: {samples}.'
            )
            return
        runner.logger.error(
            f'{what}, as in {self.in_a_row} iterations in a row: training ends, nothing more is '
            f'saved. Samples: {samples}. {ADVICE} Then go on with --resume from the last '
            'checkpoint.'
        )
        raise SystemExit(1)

    def after_train(self, runner: Any) -> None:
        """Say how many iterations were skipped."""
        if self.skipped:
            runner.logger.warning(f'{self.skipped} iterations with a non-finite loss were skipped.')


class _Sieve:
    """``OptimWrapper.update_params`` that leaves the weights alone where the loss is no number."""

    def __init__(self, update: Any, wrapper: Any) -> None:
        self.update, self.wrapper = update, wrapper
        self.rejected = False

    def __call__(self, loss: torch.Tensor, *args, **kwargs) -> None:
        good = torch.isfinite(loss.detach()).all().to(torch.float32)
        dist.all_reduce(good, 'min')
        self.rejected = not bool(good.item())
        if not self.rejected:
            self.update(loss, *args, **kwargs)
            return
        # The gradients of an accumulation stay; this iteration only adds none to them.
        self.wrapper._inner_count += 1


def _is_finite(loss: Any) -> bool:
    if loss is None:
        return True
    value = loss.item() if isinstance(loss, torch.Tensor) and loss.numel() == 1 else loss
    return not isinstance(value, int | float) or math.isfinite(value)


def _shown(loss: Any) -> str:
    return str(loss.item() if isinstance(loss, torch.Tensor) and loss.numel() == 1 else loss)


def _samples(runner: Any, batch: int) -> str:
    loader = runner.train_loop.dataloader
    names = loader.names(batch) if isinstance(loader, ResumableLoader) else []
    return ', '.join(names) or 'unknown (use uniformer_mm.DurableCheckpointHook to see them)'
