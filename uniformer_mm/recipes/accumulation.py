# SPDX-License-Identifier: Apache-2.0
"""Configs that inherit a shipped config, and keeps its batch on fewer GPUs.

With k = published GPUs / your GPUs, gradients of k iterations make one update of the published
batch. mmengine's wrapper divides each loss by k, so clipping and the AMP loss scale see the mean
over the whole batch, as after DDP's average over all GPUs; each GPU keeps its batch size, so
BatchNorm (not SyncBN) and mixing see what they saw.

But mmengine steps schedulers, loops and hooks once an iteration: what counts iterations is
multiplied by k here. Update u is made at the end of iteration k * u + k - 1, so schedulers also
begin k - 1 iterations late, and every update has its published rate. What counts epochs stays. So
does what ``convert_to_iter_based`` multiplies by the length of an epoch, which is k times as long;
those rates come less than one update early.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine import Config

from ..files import write_text
from .catalogue import find_recipe
from .recipe import Recipe
from .shipped import config_path

# Lengths that schedulers of mmengine hold in steps, begin apart.
_STEPS = {
    'LinearLR': ('end',),
    'PolyLR': ('end',),
    'CosineAnnealingLR': ('end', 'T_max'),
    'MultiStepLR': ('end', 'milestones'),
}


class _Times(int):
    """A product that shows its factors in a config."""

    def __new__(cls, value: int, times: int) -> _Times:
        product = super().__new__(cls, value * times)
        product.text = f'{value} * {times}' if value != 1 else f'{times}'
        return product

    def __repr__(self) -> str:
        return self.text


def effective_batch(recipe: Recipe) -> int | None:
    """Samples of one published update: GPUs x the config's batch; None if nothing trains it."""
    if not recipe.training:
        return None
    cfg = Config.fromfile(config_path(find_recipe(recipe.training)))
    return recipe.gpus * cfg.train_dataloader.batch_size


def accumulate(cfg: Config, times: int) -> dict[str, Any]:
    """What a config must change for gradients of `times` iterations to make one update.

    Args:
        cfg: A training config.
        times: Iterations for each update.

    Returns:
        Top-level fields that replace, or merge with, those of `cfg`.

    Raises:
        ValueError: `cfg` does not train, or has a part whose counting is not known.
    """
    if 'train_dataloader' not in cfg or 'optim_wrapper' not in cfg:
        raise ValueError('this config only tests: it has no training whose batch could be kept.')
    if 'strategy' in cfg and 'FSDP' not in cfg.strategy.type:
        raise ValueError(
            f'gradient accumulation of strategy {cfg.strategy.type!r} is set in the strategy '
            'itself, not by this command.'
        )
    changes: dict[str, Any] = {'optim_wrapper': {'accumulative_counts': times}}
    if 'auto_scale_lr' in cfg:
        # mmengine compares GPUs x batch size with this and knows nothing of accumulation.
        base = {'base_batch_size': cfg.auto_scale_lr.base_batch_size // times}
        changes['auto_scale_lr'] = base
    schedulers = cfg.param_scheduler
    listed = [schedulers] if isinstance(schedulers, dict) else schedulers
    stretched = [_stretch_scheduler(dict(scheduler), times) for scheduler in listed]
    if any(new != dict(old) for new, old in zip(stretched, listed, strict=True)):
        changes['param_scheduler'] = stretched
    if 'max_iters' in cfg.train_cfg:
        counts = [name for name in ('max_iters', 'val_interval') if name in cfg.train_cfg]
        changes['train_cfg'] = {name: _Times(cfg.train_cfg[name], times) for name in counts}
    checkpoint = cfg.default_hooks.get('checkpoint', {})
    if not checkpoint.get('by_epoch', True):
        interval = _Times(checkpoint.interval, times)
        changes['default_hooks'] = {'checkpoint': {'interval': interval}}
    hooks = cfg.get('custom_hooks', [])
    if any(hook.type.endswith('EMAHook') for hook in hooks):
        changes['custom_hooks'] = [_stretch_hook(dict(hook), times) for hook in hooks]
    return changes


def write_config(
    path: str | os.PathLike,
    base: Path,
    *,
    times: int = 1,
    title: str,
    overwrite: bool = False,
) -> None:
    """Write a config that inherits `base`, with gradients of `times` iterations for each update.

    Args:
        path: File to write; it appears whole or not at all.
        base: Absolute path of the inherited config.
        times: Iterations for each update.
        title: First line of the docstring.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        ValueError: The file exists, its folder does not, or :func:`accumulate` refuses.
    """
    target = Path(path)
    if target.suffix != '.py':
        raise ValueError(f'output {str(target)!r}: a config must end in .py.')
    if not target.parent.is_dir():
        raise ValueError(f'output {str(target)!r}: the folder {target.parent} does not exist.')
    if target.exists() and not overwrite:
        raise ValueError(f'output {str(target)!r} exists; --overwrite replaces it.')
    lines = [f'"""{title}"""', '', f'_base_ = [{str(base)!r}]']
    changes = accumulate(Config.fromfile(base), times) if times > 1 else {}
    if changes:
        lines += ['', f'# {times} iterations make one update; what counts them is multiplied.']
    lines += [f'{name} = {_source(value)}' for name, value in changes.items()]
    write_text(target, '\n'.join(lines) + '\n')


def _stretch_scheduler(scheduler: dict[str, Any], times: int) -> dict[str, Any]:
    """The scheduler whose value at iteration ``times * u + times - 1`` is the old one at ``u``."""
    if scheduler.get('by_epoch', True) or scheduler.get('convert_to_iter_based'):
        return scheduler
    kind = scheduler['type'].rpartition('.')[2]
    if kind not in _STEPS:
        raise ValueError(
            f'param_scheduler {scheduler["type"]!r} counts iterations, and its stretching is not '
            f'known; known: {sorted(_STEPS)}.'
        )
    begin = scheduler.get('begin', 0)
    if kind == 'CosineAnnealingLR' and 'end' in scheduler:
        scheduler.setdefault('T_max', scheduler['end'] - begin)
    for name in set(_STEPS[kind]) & set(scheduler):
        value = scheduler[name]
        many = isinstance(value, list | tuple)
        scheduler[name] = [_Times(v, times) for v in value] if many else _Times(value, times)
    return scheduler | {'begin': begin * times + times - 1}


def _stretch_hook(hook: dict[str, Any], times: int) -> dict[str, Any]:
    """A moving average that moves once an update."""
    if not hook['type'].endswith('EMAHook'):
        return hook
    for name in ('begin_iter', 'gamma'):
        if hook.get(name):
            hook[name] = _Times(hook[name], times)
    return hook | {'interval': _Times(hook.get('interval', 1), times)}


def _source(value: Any, indent: int = 0) -> str:
    """Python text of plain data, one line an item where the whole is long."""
    if isinstance(value, dict):
        plain = all(isinstance(key, str) and key.isidentifier() for key in value)
        marks = ('dict(', ')') if plain else ('{', '}')
        names = [f'{key}=' if plain else f'{key!r}: ' for key in value]
        items = [n + _source(v, indent + 4) for n, v in zip(names, value.values(), strict=True)]
    elif isinstance(value, list | tuple):
        items, marks = [_source(v, indent + 4) for v in value], ('[', ']')
    else:
        return repr(value)
    line = marks[0] + ', '.join(items) + marks[1]
    if indent + len(line) <= 92 and '\n' not in line:
        return line
    space = ' ' * (indent + 4)
    return '\n'.join([marks[0], *(f'{space}{item},' for item in items), ' ' * indent + marks[1]])
