# SPDX-License-Identifier: Apache-2.0
"""mmengine's training loops, continued in the middle of an epoch and ended with a clear word."""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from .loader import ResumableLoader, end_iterator
from .memory import advice_for

# PyTorch's messages about workers that died ("(pid 12)", "(pid(s) 12, 13)") and that hang.
_WORKER_FAILED = re.compile(r'DataLoader (worker|timed out)')
_PIDS = re.compile(r'\d+')


class _PositionedIterator(_InfiniteDataloaderIterator):
    """mmengine's endless iterator, begun at a batch; the first ``done`` calls return None.

    The loop "advances the dataloader" by as many calls, which decode every sample; here they cost
    nothing.
    """

    def __init__(self, loader: ResumableLoader, done: int) -> None:
        self._to_ignore = done
        epoch, start = self._locate(loader, done)
        loader.batch_sampler.epoch, loader.batch_sampler.start = epoch, start
        loader.batch_sampler.counts_passes = True
        super().__init__(loader)
        self._epoch = epoch

    def __next__(self) -> Any:
        if self._to_ignore > 0:
            self._to_ignore -= 1
            return None
        return super().__next__()

    @staticmethod
    def _locate(loader: ResumableLoader, done: int) -> tuple[int, int]:
        sampler = loader.batch_sampler.sampler
        if hasattr(sampler, '_indices_of_rank'):
            # Endless.
            return 0, done
        return divmod(done, len(loader))


def make_resumable(runner: Any, seed: int, sampler_seed: int | None, timeout: float) -> None:
    """Give the runner's training and validation loop a :class:`ResumableLoader`.

    Args:
        runner: Its loop is built and has not begun.
        seed: Of the run; samples are seeded with it.
        sampler_seed: What the sampler is seeded with, None to leave it.
        timeout: Seconds to wait for a batch.
    """
    loop = runner.train_loop
    end_iterator(getattr(getattr(loop, 'dataloader_iterator', None), '_iterator', None))
    rank = getattr(runner, 'rank', 0)
    loop.dataloader = ResumableLoader.of(loop.dataloader, seed, rank, timeout)
    sampler = loop.dataloader.batch_sampler.sampler
    if sampler_seed is not None and hasattr(sampler, 'seed'):
        sampler.seed = sampler_seed
    atexit.register(loop.dataloader.kill_workers)
    if runner.val_loop is not None and getattr(runner.val_loop.dataloader, 'batch_sampler', None):
        validation = runner.val_loop
        validation.dataloader = ResumableLoader.of(validation.dataloader, seed, rank, timeout)
        atexit.register(validation.dataloader.kill_workers)


def continue_after(runner: Any, done: int) -> None:
    """Let the loop begin after ``done`` batches (of the epoch, or of the run where it is one)."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        loop.dataloader_iterator = _PositionedIterator(loop.dataloader, done)
    elif done:
        if type(loop).run_epoch is not EpochBasedTrainLoop.run_epoch:
            runner.logger.warning(
                f'The checkpoint was saved after {done} batches of an epoch, and '
                f'{type(loop).__name__} cannot begin there: the epoch starts over.'
            )
            return
        loop.dataloader.batch_sampler.start = done
        loop.run_epoch = partial(_finish_epoch, loop, done)


def _finish_epoch(loop: EpochBasedTrainLoop, done: int) -> None:
    """``EpochBasedTrainLoop.run_epoch`` from batch ``done`` on, once."""
    del loop.run_epoch
    loop.runner.call_hook('before_train_epoch')
    loop.runner.model.train()
    for number, batch in enumerate(loop.dataloader, done):
        loop.run_iter(number, batch)
    loop.runner.call_hook('after_train_epoch')
    loop._epoch += 1


def guarded(runner: Any, call: Callable[[], Any]) -> Any:
    """Run ``call``; say what a worker was at when it failed, and what helps against lost memory.

    Raises:
        SystemExit: A worker died or timed out.
        torch.cuda.OutOfMemoryError: As raised, after the advice was logged.
    """
    try:
        return call()
    except torch.cuda.OutOfMemoryError:
        runner.logger.error(advice_for(runner))
        raise
    except RuntimeError as error:
        loops = [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]
        loaders = [
            loop.dataloader for loop in loops if isinstance(loop.dataloader, ResumableLoader)
        ]
        if not (_WORKER_FAILED.match(str(error)) and loaders):
            raise
        message = str(error).split('\n')[0].rstrip('.')
        pids = (
            [int(pid) for pid in _PIDS.findall(message.split('(', 1)[1])] if '(' in message else []
        )
        places = [place for loader in loaders if (place := loader.whereabouts(pids))]
        runner.logger.error(
            f'{message}: {"; ".join(places) or "no worker was at a sample"}. Look at that file, at '
            'the memory that is left (the system kills what takes too much; fewer workers take '
            'less), and, if the file system is slow, raise worker_timeout of the checkpoint hook; '
            'then go on with --resume.'
        )
        for loader in loaders:
            loader.kill_workers()
        raise SystemExit(1) from error
