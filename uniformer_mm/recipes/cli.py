# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``recipes`` and ``config`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from rich.table import Table

from ..console import plain_console, print_pairs, table_console
from ..models.arch import ARCHS
from ..weights.zoo import percent
from .catalogue import find_recipe, recipes
from .recipe import REMARK_KINDS, TOOLBOXES, Recipe
from .shipped import config_path, config_root, shipped_configs

_PUBLISHED_GPUS = 8


def add_recipes_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``recipes``."""
    parser = subparsers.add_parser('recipes', description='List the published results.')
    parser.add_argument('--task', choices=list(TOOLBOXES))
    parser.add_argument('--arch', choices=list(ARCHS))
    parser.set_defaults(run=_list_recipes)
    actions = parser.add_subparsers(metavar='ACTION')
    show = actions.add_parser('show', help='config, commands, expectations and contradictions')
    show.add_argument('recipe', metavar='ID', help='row id, config or name of its weights')
    show.set_defaults(run=_show_recipe)
    return parser


def add_config_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``config``."""
    parser = subparsers.add_parser(
        'config',
        description="Print a shipped config's path, or write a config that inherits it.",
    )
    parser.add_argument('recipe', metavar='ID', help='row id or config, for example det/NAME.py')
    parser.add_argument('--output', metavar='FILE', help='write a config that inherits it')
    parser.add_argument(
        '--gpus', type=int, help='GPUs that you have; gradients accumulate to the published batch'
    )
    parser.add_argument('--overwrite', action='store_true')
    parser.set_defaults(run=_config)
    return parser


def commands(recipe: Recipe, root: str | Path) -> dict[str, str]:
    """Command lines by their purpose: train (if a config trains it), test, fetch the weights.

    Args:
        recipe: One with a config.
        root: Folder of all configs, as it shall stand in the commands.
    """
    lines = {}
    if recipe.training:
        config = f'{root}/{find_recipe(recipe.training).config}'
        launcher = f'pytorch --gpus {recipe.gpus}'
        if recipe.gpus > _PUBLISHED_GPUS:
            launcher = f'slurm --partition NAME --gpus {recipe.gpus} --gpus-per-node 8'
        lines['train'] = f'mim train {recipe.toolbox} {config} --launcher {launcher}'
    checkpoint = recipe.weights or 'CHECKPOINT'
    names = ['test', *(f'test, {Path(c).stem.rpartition("_")[2]}' for c in recipe.other_configs)]
    for name, config in zip(names, recipe.configs, strict=True):
        lines[name] = f'mim test {recipe.toolbox} {root}/{config} --checkpoint {checkpoint}'
    if 'mIoU_ms' in recipe.metrics:
        lines['test, multi-scale'] = f'{lines["test"]} --tta'
    if recipe.weights:
        lines['weights'] = f'uniformer-mm zoo fetch {recipe.weights.partition("://")[2]}'
    return lines


def metric_text(metrics: dict[str, float]) -> str:
    """Metrics as text."""
    return ', '.join(f'{name} {percent(value)}' for name, value in metrics.items())


def _list_recipes(args: Namespace) -> int:
    found = [
        recipe
        for recipe in recipes()
        if args.task in (None, recipe.task) and args.arch in (None, recipe.arch)
    ]
    table = Table('recipe', 'config', 'arch', 'published', 'params', 'FLOPs', box=None)
    for recipe in found:
        flops = recipe.flops + (' (wrong)' if recipe.flops_are_wrong else '')
        words = metric_text(recipe.metrics)
        table.add_row(recipe.id, recipe.config, recipe.arch, words, recipe.params, flops)
    console = table_console()
    console.print(table)
    console.print(f'{len(found)} recipes; all numbers as published, ours: not run')
    return 0


def _show_recipe(args: Namespace) -> int:
    recipe = find_recipe(args.recipe)
    pairs = [
        ('recipe', recipe.id),
        ('config', str(config_path(recipe))),
        *(('config', str(config_root() / config)) for config in recipe.other_configs),
        ('arch', f'{recipe.arch}, head_dim {recipe.row.head_dim}'),
        ('attention', recipe.row.attention or 'global'),
    ]
    pairs += commands(recipe, config_root()).items()
    pairs += [
        ('published', metric_text(recipe.metrics)),
        ('ours', 'not run'),
        ('tested', recipe.protocol.words),
        *_cost(recipe),
    ]
    # mmengine, which takes longer to import than the rest takes to run.
    from .accumulation import effective_batch

    batch = effective_batch(recipe)
    if batch:
        gpus = recipe.gpus
        pairs.append(('batch', f'{batch} on {gpus} GPUs ({batch // gpus} on each)'))
    if recipe.seed is not None:
        pairs.append(('seed', f'{recipe.seed} (published)'))
    if not recipe.row.released:
        pairs.append(('weights', 'never released'))
    for other in recipe.also_published:
        words = metric_text(other.metrics)
        pairs.append(('elsewhere', f'{words} ({other.source}: {other.test})'))
    for remark in recipe.remarks:
        pairs.append(('remark', f'{REMARK_KINDS[remark.kind]}: {remark.text}'))
    print_pairs(pairs)
    return 0


def _cost(recipe: Recipe) -> list[tuple[str, str]]:
    """Published and measured parameters and FLOPs."""
    measured = recipe.measured
    per_view = ' of one view' if recipe.task == 'video' else ''
    params = f'{measured.params:,}' if measured.params else 'not counted'
    pairs = [('measured', f'{measured.network} at {measured.input}: parameters {params}, '
              f'{measured.gmacs:g} G multiply-adds{per_view}')]  # fmt: skip
    printed = [f'parameters {recipe.params}'] if recipe.params else []
    if recipe.flops:
        views = ' of all views' if recipe.task == 'video' else f' at {recipe.flops_input}'
        printed.append(f'FLOPs {recipe.flops}{views}')
    if printed:
        pairs.insert(0, ('published', ', '.join(printed)))
    return pairs


def _config(args: Namespace) -> int:
    path, gpus = _resolve(args.recipe)
    wanted = args.gpus if args.gpus is not None else gpus
    if wanted < 1 or gpus % wanted:
        raise ValueError(f'--gpus {wanted}: must divide the {gpus} GPUs of the published training.')
    if args.output is None:
        if wanted != gpus:
            raise ValueError(f'--gpus {wanted} needs --output FILE, the config to write.')
        _print_path(path)
        return 0
    relative = path.relative_to(config_root())
    title = f'{relative} with the batch of {gpus} GPUs on {wanted}.'
    if wanted == gpus:
        title = f'{relative}, to be changed.'
    from .accumulation import write_config

    write_config(args.output, path, times=gpus // wanted, title=title, overwrite=args.overwrite)
    _print_path(Path(args.output))
    return 0


def _resolve(name: str) -> tuple[Path, int]:
    """The config of a recipe, or any shipped one, and the GPUs that its batch is meant for."""
    relative = name.removeprefix('configs/')
    owners = [recipe for recipe in recipes() if relative in recipe.configs]
    if relative in shipped_configs() and not owners:
        quick = 'quickstart' in relative
        return config_root() / relative, 1 if quick else _PUBLISHED_GPUS
    recipe = owners[0] if owners else find_recipe(name)
    path = config_root() / relative if owners else config_path(recipe)
    return path, recipe.gpus


def _print_path(path: Path) -> None:
    """A path alone on its line, so that the shell can use it."""
    plain_console().print(str(path), markup=False)
