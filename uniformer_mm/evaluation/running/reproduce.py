# SPDX-License-Identifier: Apache-2.0
"""One published result against one measured here, by its official test."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config

from ...recipes import TOOLBOXES, Recipe, config_path, config_root, find_recipe
from ...weights.resolve import resolve_file
from ..metrics.percentages import found_nothing, percentages
from ..record import DEFAULT_WORK_DIR, Record, device_name, machine, write_record
from .analysis import subset_intervals, suspect_order
from .data_lists import list_order, write_image_list
from .launch import Advance, run_test
from .loop import folder_of
from .protocol import (
    Choices,
    annotation_files,
    build_config,
    config_digest,
    published_files,
    with_attention,
)
from .worker import CONFIG, SPEC


@dataclass(frozen=True)
class Test:
    """One test to run: a row has several where its protocol is not settled.

    Attributes:
        name: Row id, or the path of a user's config.
        recipe: The row's, if it is one.
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        config: Path of the config.
        variant: What tells it from the row's other tests, or empty.
    """

    name: str
    recipe: Recipe | None
    task: str
    config: Path
    variant: str = ''


def tests_of(name: str, attention: str | None = None) -> list[Test]:
    """The tests of a row, or of a config file.

    Args:
        name: Row id, short name or config of the catalogue, or the path of another config.
        attention: Test-time attention, see ``protocol.ATTENTIONS``.

    Raises:
        ValueError: No such row or file, a row that cannot be built yet, or no such attention.
    """
    path = Path(name)
    own = name.endswith('.py') and path.is_file() and not _shipped(path)
    if own:
        return [Test(path.stem, None, _task_of(path), path.absolute())]
    try:
        recipe = find_recipe(_shipped(path) or name)
    except ValueError:
        if not name.endswith('.py') or path.is_file():
            raise
        raise ValueError(
            f'{name}: no such file; name a config that is there, or a row of uniformer-mm recipes.'
        ) from None
    if attention is not None:
        recipe = with_attention(recipe, attention)
    first = config_path(recipe)
    tests = [Test(recipe.id, recipe, recipe.task, first)]
    for other in recipe.other_configs:
        tests.append(Test(recipe.id, recipe, recipe.task, config_root() / other, Path(other).stem))
    if len(tests) > 1:
        tests[0] = replace(tests[0], variant=first.stem)
    return tests


def _shipped(path: Path) -> str:
    """The path relative to ``configs/`` if the catalogue has it, else nothing."""
    if path.suffix != '.py' or not path.is_file():
        return ''
    root, path = config_root(), path.resolve()
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else ''
    try:
        return relative and find_recipe(relative).config and relative
    except ValueError:  # a quickstart or an option: no published result
        return ''


def _task_of(path: Path) -> str:
    scopes = {'mmaction': 'video', **{toolbox: task for task, toolbox in TOOLBOXES.items()}}
    scope = Config.fromfile(path).get('default_scope')
    if scope not in scopes:
        raise ValueError(f'{path}: default_scope={scope!r} must be one of {sorted(scopes)}.')
    return scopes[scope]


def folder_for(test: Test, choices: Choices, work_dir: Path) -> Path:
    """The folder of a test below ``work_dir``: other choices, other folder."""
    parts = [test.variant] if test.variant else []
    parts += [f'{key}-{value}' for key, value in protocol_text(choices).items()]
    if choices.limit is not None:
        parts.append(f'limit-{choices.limit}-seed-{choices.seed}')
    name = '+'.join(_file_name(part) for part in parts) or 'official'
    return work_dir / _file_name(test.name.replace('/', '-')) / name


def _file_name(text: str) -> str:
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in text)


def protocol_text(choices: Choices) -> dict[str, str]:
    """The choices that change numbers, by name; none of them is the official single-scale test."""
    words = {}
    if choices.multi_scale:
        words['scales'] = 'multi'
    if choices.boxes:
        words['boxes'] = 'gt' if choices.boxes == 'gt' else Path(choices.boxes).stem
    if choices.fusion != 'logits':
        words['fusion'] = choices.fusion
    if choices.classes:
        words['classes'] = Path(choices.classes).stem
    if choices.stock:
        words['pipeline'] = 'stock'
    for key, value in choices.overrides.items():
        if key.startswith('test_dataloader.dataset.') or not key.startswith('test_dataloader.'):
            words[key] = str(value)
    return words


def reproduce(
    test: Test,
    choices: Choices,
    advance: Advance,
    *,
    weights: str | None = None,
    gpus: int | None = None,
    work_dir: Path = DEFAULT_WORK_DIR,
    restart: bool = False,
) -> tuple[Path, Record]:
    """Run a test, or what is left of it, and write its record.

    Args:
        test: See :func:`tests_of`.
        choices: The user's.
        advance: Shows the progress.
        weights: Checkpoint; None takes the row's own.
        gpus: GPUs, 0 is the CPU; None takes one if there is one.
        work_dir: Folders of tests lie below it.
        restart: Throw stored results away.

    Returns:
        The folder and the record in it.

    Raises:
        ValueError: See the parts; the message says what to do.
        TestFailedError: A process died.
    """
    if weights is None:
        weights = _row_weights(test)
    gpus = _check_gpus(gpus)
    folder = folder_of(folder_for(test, choices, work_dir))
    if restart:
        shutil.rmtree(folder)
        folder = folder_of(folder)
    if not choices.data.is_dir():
        raise ValueError(f'data={str(choices.data)!r} is no folder; name the root of your data.')
    config = build_config(test.config, test.task, choices, folder)
    if test.task == 'cls':
        write_image_list(config, choices.classes, folder)
    _check_lists(config)
    dataset_name = test.recipe.row.dataset if test.recipe else ''
    order = None
    if test.task == 'video' and test.recipe:
        order = list_order(config, dataset_name, choices.class_order)
    resolved = resolve_file(weights)
    digest = config_digest(config, folder, choices.data, choices.data.absolute())
    config.test_cfg.identity = {
        'weights': resolved.digests.get('sha256', ''),
        'configuration': digest,
        'class order': order or '',
    }
    _write_inputs(folder, config, test, weights, order)
    started = time.monotonic()
    result = run_test(folder, gpus, advance)
    record = Record(
        row=test.name,
        task=test.task,
        config=_config_name(test.config),
        protocol=protocol_text(choices) | ({'variant': test.variant} if test.variant else {}),
        metrics=percentages(config, test.task, result['metrics'], folder),
        published=_published(test, choices),
        published_files=published_files(test.recipe) if test.recipe else 0,
        intervals={},
        interval_method='',
        limit=choices.limit,
        seed=choices.seed,
        weights=Path(result['weights']['path']).name,
        weights_sha256=result['weights']['sha256'],
        class_order=result['weights']['class_order'],
        config_sha256=digest,
        classes=result['classes'],
        notes=[],
        device=device_name(gpus),
        seconds=round(time.monotonic() - started, 1),
        **result['data'],
        **machine(),
    )
    record = _annotate(record, config, folder, order)
    write_record(record, folder)
    return folder, record


def _row_weights(test: Test) -> str:
    if test.recipe is None:
        raise ValueError(f'{test.name} is no row of the catalogue; name its checkpoint: --weights.')
    if not test.recipe.weights:
        raise ValueError(
            f'{test.name}: its weights were never released (only its training log was); name a '
            'checkpoint of your own: --weights FILE.'
        )
    return test.recipe.weights


def _check_gpus(gpus: int | None) -> int:
    there = torch.cuda.device_count()
    if gpus is None:
        return min(1, there)
    if not 0 <= gpus <= there:
        raise ValueError(f'gpus={gpus}, but this machine has {there}; 0 tests on the CPU.')
    return gpus


def _check_lists(config: Config) -> None:
    for path in annotation_files(config):
        if not path.is_file():
            raise ValueError(
                f'{path} is not there, which lists the samples of the test; check --data '
                '(the folder that holds coco, ade, kinetics400, ...).'
            )
    if not annotation_files(config):
        dataset = config.test_dataloader.dataset
        prefixes = dataset.get('data_prefix') or {}
        values = prefixes.values() if isinstance(prefixes, Mapping) else [prefixes]
        for value in values:
            path = Path(dataset.get('data_root') or '') / (value or '')
            if not path.is_dir() or not any(path.iterdir()):
                raise ValueError(f'{path} is not there or empty; check --data.')


def _write_inputs(
    folder: Path, config: Config, test: Test, weights: str, order: str | None
) -> None:
    spec = {
        'row': test.recipe.id if test.recipe else '',
        'task': test.task,
        'weights': weights,
        'class_order': order,
    }
    try:
        config.dump(folder / CONFIG)
        (folder / SPEC).write_text(json.dumps(spec), encoding='utf-8')
    except OSError as error:
        raise ValueError(f'{folder} cannot be written ({error.strerror}).') from None


def _published(test: Test, choices: Choices) -> dict[str, float]:
    """The published numbers that this test measures."""
    changed = set(protocol_text(choices)) - {'scales', 'pipeline'}
    if test.recipe is None or changed:
        return {}
    wanted = 'mIoU_ms' if choices.multi_scale else 'mIoU'
    published = test.recipe.metrics
    return {
        name: value for name, value in published.items() if test.task != 'seg' or name == wanted
    }


def _annotate(record: Record, config: Config, folder: Path, order: str | None) -> Record:
    """Add intervals and notes that need the predictions."""
    notes = []
    if record.task == 'det' and found_nothing(folder):
        notes.append('the network found nothing in any image')
    if record.missing:
        notes.append(f'{record.missing} of the listed files are missing and were left out')
    if record.task == 'video' and (note := suspect_order(folder, record, order)):
        notes.append(note)
    intervals, method = {}, ''
    if not record.whole:
        intervals, method = subset_intervals(folder, record, config)
    return replace(record, notes=notes, intervals=intervals, interval_method=method)


def _config_name(path: Path) -> str:
    root = config_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
