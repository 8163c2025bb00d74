# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT: save at the next iteration and end with a status that says so."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook

from ..registry import HOOKS, register
from .checkpoint_hook import DurableCheckpointHook

RESUME_ME = 75
"""Exit status of a run that was asked to stop and has saved: EX_TEMPFAIL of sysexits.h."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@register(HOOKS)
class StopOnSignalHook(Hook):
    """On the first SIGTERM or SIGINT save after the iteration and exit with status 75.

    On a second one the process ends at once, as it would have on the first. All ranks stop after
    the same iteration, though the signal reaches them at different times. During a validation the
    run ends at once if a checkpoint of its iteration exists, else after it.
    """

    # After the checkpoint hook.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._asked: int | None = None
        self._before: dict[int, Any] = {}
        self._group = None
        self._flag: torch.Tensor | None = None
        self._agreeing: Any = None

    def before_train(self, runner: Any) -> None:
        """Listen."""
        if threading.current_thread() is not threading.main_thread():
            # Python delivers signals to the main thread only.
            return
        if dist.get_world_size() > 1 and self._group is None:
            # On the CPU: nothing waits for the GPU.
            self._group = torch.distributed.new_group(backend='gloo')
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def after_train(self, runner: Any) -> None:
        """Listen no more."""
        if self._agreeing is not None:
            self._agreeing.wait()
            self._agreeing = None
        self._restore()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit, if a signal has come.

        Raises:
            SystemExit: With status 75.
        """
        if not self._is_agreed():
            return
        hook = _checkpoint_hook(runner)
        if hook is None:
            runner.logger.warning(
                'Stopping without saving: only uniformer_mm.DurableCheckpointHook saves at any '
                'iteration.'
            )
            self._exit(runner, 'the last checkpoint')
        self._exit(runner, hook.save_now(runner))

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Exit, if a signal has come and this iteration is saved.

        Raises:
            SystemExit: With status 75.
        """
        hook = _checkpoint_hook(runner)
        alone = dist.get_world_size() == 1
        if self._asked is not None and alone and hook is not None and hook.is_saved(runner):
            self._exit(runner, hook.last_ckpt)

    def _note(self, number: int, frame: Any) -> None:
        if self._asked is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._asked = number
        name = signal.Signals(number).name
        os.write(2, f'\n{name}: saving after this iteration; once more ends at once.\n'.encode())

    def _is_agreed(self) -> bool:
        """Whether all ranks know that one was asked: of the iteration before, with several."""
        if self._group is None:
            return self._asked is not None
        agreed = False
        if self._agreeing is not None:
            self._agreeing.wait()
            agreed = bool(self._flag.item())
        self._flag = torch.tensor([float(self._asked is not None)])
        self._agreeing = None
        if not agreed:
            self._agreeing = torch.distributed.all_reduce(
                self._flag, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
        return agreed

    def _exit(self, runner: Any, path: str | None) -> None:
        runner.logger.warning(
            f'Stopped by a signal; saved {path}. Exit status {RESUME_ME}: go on with --resume.'
        )
        self._restore()
        raise SystemExit(RESUME_ME)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def _checkpoint_hook(runner: Any) -> DurableCheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, DurableCheckpointHook)), None)
