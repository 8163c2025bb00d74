# SPDX-License-Identifier: Apache-2.0
"""mmengine's checkpoint hook, with files that survive and a run that goes on exactly."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from ..registry import HOOKS, register
from . import durable, generators
from .found import POINTER, fault_of, newest_intact, read_quietly
from .history import shorten, survive_refusals
from .loader import ResumableLoader
from .loops import continue_after, guarded, make_resumable
from .trust import distrust

STATE = 'uniformer_mm_run'
# Waits between the attempts to write, in seconds: a server that restarts, a mount that comes back.
_WAITS = (1, 5, 25)
# No space, quota spent, file too large for the file system: more attempts do not help at once.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@register(HOOKS)
class DurableCheckpointHook(CheckpointHook):
    """Save so that nothing is lost, and resume so that nothing changes.

    * A checkpoint is written under a temporary name, synced and renamed; then ``last_checkpoint``
      moves; then what is to go, goes. mmengine deletes first and writes in place.
    * ``--resume`` takes the newest checkpoint that is intact, and names those that are not.
    * Beside what mmengine saves, a checkpoint holds the random generators of every rank, the
      position in the epoch, and whether a validation was due. Samples are seeded one by one (see
      ``loader.py``). A run that was killed and resumed ends as one that was not.
    * A full disk costs one checkpoint, not the run. Weights with NaN are never saved.
    * What a checkpoint says is checked before the runner acts on it (see ``trust.py``).

    Args:
        worker_timeout: Seconds to wait for a batch before the run ends and names the sample; 0
            waits for ever.
        history: Values that each logged quantity keeps; mmengine's grow by one an iteration.
        **kwargs: Of mmengine's ``CheckpointHook``. ``max_keep_ckpts`` below 2 keeps no second file
            should the disk lose the newest.
    """

    def __init__(self, *args, worker_timeout: float = 600, history: int = 10_000, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.worker_timeout = worker_timeout
        self.history = history
        self._loaded: dict | None = None
        self._restored_after_validation: dict | None = None
        self._writing_state: dict | None = None
        self._writing_at: dict[str, int] = {}
        self._done = 0
        # What was saved last, as (epoch, iteration) of the training loop.
        self.saved_at: tuple[int, int] | None = None

    # What happens before training.

    def before_run(self, runner: Any) -> None:
        """Guard the training loop; choose the checkpoint to resume from, where none is named."""
        loop = getattr(runner, '_train_loop', None)
        if isinstance(loop, BaseLoop):
            loop.run = partial(guarded, runner, loop.run)
        # mmengine's FlexibleRunner loads before it calls hooks.
        if not getattr(runner, '_resume', False) or getattr(runner, '_has_loaded', False):
            return
        folder = self._folder(runner)
        named = runner._load_from
        if '://' in (named or folder):
            # Files elsewhere are mmengine's to find and to read.
            return
        found = [None, None]
        if dist.is_main_process():
            # A refusal is raised on all ranks, or the others would wait for this one.
            try:
                found[0] = self._choose(folder, named, runner.logger.warning)
            except ValueError as error:
                found[1] = str(error)
        dist.broadcast_object_list(found)
        chosen, refusal = found
        if refusal is not None:
            raise ValueError(refusal)
        runner._load_from = chosen
        runner._resume = chosen is not None
        if chosen is None:
            runner.logger.warning(f'resume: {folder} holds no checkpoint; training begins.')

    def _choose(self, folder: str, named: str | None, warn: Callable[[str], object]) -> str | None:
        if named is None:
            return newest_intact(folder, read_quietly, warn, self._suffix)
        fault = fault_of(Path(named), read_quietly)
        if fault is not None:
            raise ValueError(
                f'resume: {named} cannot be resumed: {fault}. Name another file, or none to take '
                f'the newest intact one in {folder}.'
            )
        return named

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Check what the checkpoint says, and keep what this hook saved."""
        for sentence in distrust(checkpoint, self._folder(runner)):
            runner.logger.warning(sentence)
        state = checkpoint.get(STATE)
        self._loaded = state if getattr(runner, '_resume', False) else None

    def before_train(self, runner: Any) -> None:
        """Prepare the folder and the loader; go on where the checkpoint was saved."""
        super().before_train(runner)
        survive_refusals(runner)
        state, self._loaded = self._loaded, None
        if self._is_local() and dist.is_main_process():
            for name in durable.clear_unfinished(self.out_dir):
                runner.logger.info(f'Deleted {name}, left by a process that was killed.')
        resumed = runner.iter > 0 or runner.epoch > 0
        if resumed and state is None:
            runner.logger.warning(
                'The checkpoint holds no random state (it was not saved by '
                'uniformer_mm.DurableCheckpointHook): the run goes on, with other random numbers.'
            )
        state = _checked(state)
        seed = state.get('seed', getattr(runner, 'seed', None) or 0)
        self._seed = seed
        make_resumable(runner, seed, state.get('sampler_seed'), self.worker_timeout)
        self._done = state.get('done', self._position_without_state(runner) if resumed else 0)
        if state:
            self._restore(runner, state)
        if state.get('validation_due') and runner.val_loop is not None:
            runner.logger.info('The run ended before a validation that was due; it is made now.')
            runner.val_loop.run()
        self._restored_after_validation = generators.capture() if state else None
        continue_after(runner, self._done)

    def before_train_epoch(self, runner: Any) -> None:
        """Tell the loader its epoch; let go on what began before the run ended."""
        loader = runner.train_loop.dataloader
        if isinstance(loader, ResumableLoader) and not isinstance(
            runner.train_loop, IterBasedTrainLoop
        ):
            loader.batch_sampler.epoch = runner.epoch
        restored, self._restored_after_validation = self._restored_after_validation, None
        if restored is not None and self._done > 0:
            # Hooks of this epoch's beginning have run in the first process already.
            generators.restore(restored)

    def _restore(self, runner: Any, state: dict) -> None:
        states = state['generators']
        if len(states) == dist.get_world_size():
            generators.restore(states[dist.get_rank()])
        else:
            runner.logger.warning(
                f'The checkpoint was saved by {len(states)} processes and is resumed by '
                f'{dist.get_world_size()}: the run goes on, with other random numbers.'
            )
        gradients = state.get('gradients', {})
        for name, parameter in runner.model.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)

    @staticmethod
    def _position_without_state(runner: Any) -> int:
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            return runner.iter
        return max(runner.iter - runner.epoch * len(loop.dataloader), 0)

    # When it is saved.

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save where the interval counts iterations."""
        self._done = batch_idx + 1
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Any) -> None:
        """Save where the interval counts epochs."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._done = 0
        super().after_train_epoch(runner)

    def is_saved(self, runner: Any) -> bool:
        """Whether the state between two iterations that the loop is in has been saved."""
        return self.saved_at == (runner.epoch, runner.iter)

    def save_now(self, runner: Any) -> str:
        """Save in the middle of what goes on, after an iteration; returns the file.

        The file is ``interrupted_iter_N.pth`` and lives until the next regular one is whole.
        """
        iteration = runner.iter + 1
        if self.saved_at == (runner.epoch, iteration):
            return self.last_ckpt
        name = f'interrupted_iter_{iteration}{self._suffix}'
        meta = dict(epoch=runner.epoch, iter=iteration)
        path = self._join(name)
        before = runner.message_hub.runtime_info.get('last_ckpt')
        runner.message_hub.update_info('last_ckpt', path)
        if not self._save(runner, name, meta, by_epoch=False):
            runner.message_hub.update_info('last_ckpt', before)
            return self.last_ckpt
        self.last_ckpt = path
        return path

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        """As mmengine's; what is to be deleted goes when the new file is whole."""
        before = {
            key: runner.message_hub.runtime_info.get(key) for key in ('keep_ckpt_ids', 'last_ckpt')
        }
        name = self.filename_tmpl.format(step)
        surplus = []
        if self.max_keep_ckpts > 0:
            ids = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
            surplus, ids = ids[: -self.max_keep_ckpts], ids[-self.max_keep_ckpts :]
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))
        runner.message_hub.update_info('last_ckpt', self._join(name))
        if not self._save(runner, name, meta, by_epoch=self.by_epoch):
            for key, value in before.items():
                if value is None:
                    runner.message_hub.runtime_info.pop(key, None)
                else:
                    runner.message_hub.update_info(key, value)
            return
        self.last_ckpt = self._join(name)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(ids)
        self._delete(runner, *(self._join(self.filename_tmpl.format(old)) for old in surplus))
        if self._is_local():
            self._delete(runner, *map(str, Path(self.out_dir).glob('interrupted_iter_*')))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        """As mmengine's; the former best goes when the new one is whole."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        by = 'epoch' if self.by_epoch else 'iter'
        step = runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        former, improved = [], False
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            saved = self._save_if_best(runner, key, rule, metrics[key], step, meta)
            if saved is None:
                continue
            path, old = saved
            former += [old] if old not in (None, path) else []
            runner.logger.info(
                f'The best checkpoint with {metrics[key]:0.4f} {key} at {step} {by} is saved to '
                f'{Path(path).name}.'
            )
            improved = True
        if improved:
            # Once more, now that the best score is known: a resumed run compares with it.
            if self.last_ckpt is not None:
                self._save_checkpoint_with_step(runner, step, meta)
            self._delete(runner, *former)

    def _save_if_best(
        self, runner: Any, key: str, rule: str, score: Any, step: int, meta: dict
    ) -> tuple[str, str | None] | None:
        """Save a checkpoint that beats the best so far; returns its path and the former one."""
        alone = len(self.key_indicators) == 1
        info = runner.message_hub
        score_name = 'best_score' if alone else f'best_score_{key}'
        path_name = 'best_ckpt' if alone else f'best_ckpt_{key}'
        former = self.best_ckpt_path if alone else self.best_ckpt_path_dict[key]
        best = info.runtime_info.get(score_name, self.init_value_map[rule])
        if score is None or not self.is_better_than[key](score, best):
            return None
        name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        path = self._join(name)
        if not self._write(runner, name, dict(meta), by_epoch=False, whole=False):
            return None
        info.update_info(score_name, score)
        info.update_info(path_name, path)
        if alone:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path
        return path, former

    # How it is saved.

    def _save(self, runner: Any, name: str, meta: dict, by_epoch: bool) -> bool:
        shorten(runner.message_hub, self.history)
        # The loop counts an iteration or an epoch after these hooks, a validation before.
        at = (meta['epoch'], meta['iter'])
        self._writing_at = dict(zip(('epoch', 'iter'), at, strict=True))
        self._writing_state = self._state(runner, *at)
        try:
            if not self._write(runner, name, meta, by_epoch=by_epoch, whole=True):
                return False
        finally:
            self._writing_state = None
        text = self._join(name)

        def point(file: Path) -> None:
            if dist.is_main_process():
                file.write_text(text, 'utf-8')

        self._attempt(runner, Path(runner.work_dir) / POINTER, point)
        self.saved_at = at
        return True

    def _state(self, runner: Any, epoch: int, iteration: int) -> dict:
        loop = runner.train_loop
        sampler = getattr(loop.dataloader.batch_sampler, 'sampler', None)
        state = {
            'seed': self._seed,
            'sampler_seed': getattr(sampler, 'seed', None),
            'done': self._done,
            'generators': dist.all_gather_object(generators.capture()),
            'validation_due': self._validation_is_due(runner, epoch, iteration),
        }
        gradients = {
            key: parameter.grad.detach().cpu()
            for key, parameter in runner.model.named_parameters()
            if parameter.grad is not None
        }
        if gradients and getattr(runner.optim_wrapper, '_accumulative_counts', 1) > 1:
            if dist.get_world_size() == 1:
                state['gradients'] = gradients
            else:
                runner.logger.warning(
                    'Saved in the middle of an accumulation on several GPUs: gradients of its '
                    'first iterations are not in the file. Choose an interval that '
                    'accumulative_counts divides.'
                )
        return state

    def _validation_is_due(self, runner: Any, epoch: int, iteration: int) -> bool:
        loop = runner.train_loop
        if runner.val_loop is None or runner.message_hub.runtime_info.get('loop_stage') == 'val':
            return False
        if isinstance(loop, IterBasedTrainLoop):
            count, end = iteration, loop.max_iters
        elif isinstance(loop, EpochBasedTrainLoop):
            if self._done:
                return False
            count, end = epoch, loop.max_epochs
        else:
            return False
        # The loop looks up the interval of the next step before it validates.
        later = [
            interval
            for begin, interval in zip(loop.dynamic_milestones, loop.dynamic_intervals, strict=True)
            if begin <= count + 1
        ]
        interval = later[-1] if later else loop.val_interval
        return count >= loop.val_begin and (count % interval == 0 or count == end)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Add what a resumed run needs to go on exactly."""
        if self._writing_state is not None:
            checkpoint[STATE] = self._writing_state
            # mmengine's FlexibleRunner counts one on after a validation.
            checkpoint['meta'].update(self._writing_at)

    def _write(self, runner: Any, name: str, meta: dict, by_epoch: bool, whole: bool) -> bool:
        """Write one checkpoint; False, and a warning, where it could not or must not be."""
        # All ranks take part in saving or none: under FSDP each sees its own shard only.
        faulty = [name for name in dist.all_gather_object(first_not_finite(runner.model)) if name]
        if faulty:
            runner.logger.error(
                f'{name} is not saved: {faulty[0]} has NaN or infinite values. The older '
                'checkpoints stay as they are.'
            )
            return False
        write = partial(
            runner.save_checkpoint,
            self.out_dir,
            file_client_args=self.file_client_args,
            save_optimizer=whole and self.save_optimizer,
            save_param_scheduler=whole and self.save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=self.backend_args,
            **(self.args if whole else {}),
        )
        if not self._is_local():
            # An object store shows an object when it is whole.
            write(filename=name)
            return True
        return self._attempt(
            runner, Path(self.out_dir) / name, lambda file: write(filename=file.name)
        )

    def _attempt(self, runner: Any, path: Path, write: Callable[[Path], object]) -> bool:
        """Write a file on all ranks together, and again after a while.

        Returns:
            False where the disk is full: the run goes on and tries at the next interval.

        Raises:
            SystemExit: The folder cannot be written to.
        """
        for wait in (*_WAITS, None):
            fault = self._try(path, write)
            if fault is None:
                return True
            number, reason = fault
            if number in _FULL:
                runner.logger.error(_full(path, runner.model, reason))
                return False
            if wait is not None:
                runner.logger.warning(
                    f'{path} cannot be written ({reason}); next attempt in {wait} s.'
                )
                time.sleep(wait)
        runner.logger.error(
            f'{path} cannot be written ({reason}), after {len(_WAITS) + 1} attempts in '
            f'{sum(_WAITS)} s. Training ends, because nothing of it could be kept: make the folder '
            'writable and go on with --resume.'
        )
        raise SystemExit(1)

    @staticmethod
    def _try(path: Path, write: Callable[[Path], object]) -> tuple[int | None, str] | None:
        """One attempt: error number and reason of the first rank that failed, or None."""
        unfinished = durable.unfinished_name(path)
        fault = None
        try:
            write(unfinished)
        except OSError as error:
            fault = error.errno, error.strerror or str(error)
        # Files of sharded strategies are whole when the last rank has written.
        faults = [entry for entry in dist.all_gather_object(fault) if entry is not None]
        done = [faults[0] if faults else None]
        if dist.is_main_process():
            try:
                if not faults:
                    durable.publish(unfinished, path)
            except OSError as error:
                done = [(error.errno, error.strerror or str(error))]
            if done[0] is not None:
                # Of no use, and perhaps as unwilling to go as it was to come.
                with contextlib.suppress(OSError):
                    durable.remove(unfinished)
        dist.broadcast_object_list(done)
        return done[0]

    def _delete(self, runner: Any, *paths: str) -> None:
        if not dist.is_main_process():
            return
        for path in paths:
            try:
                if not self._is_local():
                    if self.file_backend.isfile(path):
                        self.file_backend.remove(path)
                    continue
                durable.remove(path)
            except OSError as error:
                runner.logger.warning(f'{path} cannot be deleted ({error.strerror}); it stays.')

    @property
    def _suffix(self) -> str:
        return Path(self.filename_tmpl).suffix or '.pth'

    def _is_local(self) -> bool:
        return isinstance(self.file_backend, LocalBackend)

    def _join(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _folder(self, runner: Any) -> str:
        """Where this run writes, also before ``before_train`` has worked it out."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return runner.work_dir
        if hasattr(self, 'file_backend'):
            return self.out_dir
        return str(Path(self.out_dir) / Path(runner.work_dir).name)


def first_not_finite(model: torch.nn.Module) -> str | None:
    """The name of the first parameter with NaN or infinite values, or None."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            return name
    return None


def _checked(state: Any) -> dict:
    """What this hook saved, or an empty dict.

    Raises:
        ValueError: The checkpoint holds something else under that name.
    """
    if state is None:
        return {}
    kinds = {
        'seed': int,
        'sampler_seed': (int, type(None)),
        'done': int,
        'generators': list,
        'validation_due': bool,
    }
    if not isinstance(state, dict) or not all(
        isinstance(state.get(key), kind) for key, kind in kinds.items()
    ):
        raise ValueError(
            f"resume: the checkpoint's {STATE!r} is not what uniformer_mm saves there; take "
            'another checkpoint.'
        )
    return state


def _full(path: Path, model: torch.nn.Module, reason: str) -> str:
    needed = sum(part.numel() * part.element_size() for part in model.state_dict().values())
    free = shutil.disk_usage(path.parent).free
    mib = 1 << 20
    return (
        f'{path} is not saved: {reason} ({free / mib:,.0f} MiB free; weights take '
        f'{needed / mib:,.0f} MiB, with AdamW about {3 * needed / mib:,.0f}). Training goes on and '
        'tries again at the next interval; older checkpoints are as they were.'
    )
