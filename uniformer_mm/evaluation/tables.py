# SPDX-License-Identifier: Apache-2.0
"""All rows as the papers' tables: published, measured here, or not run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..recipes import Recipe, recipes
from ..weights.zoo import percent
from .record import Record
from .text import protocol_text

_TITLES = {
    'imagenet1k': 'ImageNet-1K',
    'coco': 'COCO val2017, boxes and masks',
    'ade20k': 'ADE20K val',
    'coco_keypoints': 'COCO val2017, keypoints',
    'kinetics400': 'Kinetics-400',
    'kinetics600': 'Kinetics-600',
    'ssv1': 'Something-Something V1',
    'ssv2': 'Something-Something V2',
    'ucf101': 'UCF101, split 1',
    'hmdb51': 'HMDB51, split 1',
}
NOT_RUN = 'not run'


def best_records(records: Iterable[tuple[Path, Record]]) -> dict[tuple[str, str], Record]:
    """The record that counts for each row and metric.

    One that has the metric goes before one that lacks it (persons of a size may not occur in a
    subset), a comparable test before another, a newer one before an older one; of a row whose
    normalisation is not settled, the closer one.
    """
    found: dict[tuple[str, str], Record] = {}
    for _, record in records:
        for metric in record.published:
            key = (record.row, metric)
            if key not in found or _weight(record, metric) >= _weight(found[key], metric):
                found[key] = record
    return found


def _weight(record: Record, metric: str) -> tuple:
    value = record.metrics.get(metric)
    variant = value is not None and 'variant' in record.protocol
    off = abs(value - record.published[metric]) if variant else 0.0
    return value is not None, record.comparable, -off, record.date


def print_results(
    console: Console,
    records: list[tuple[Path, Record]],
    task: str | None = None,
    only_measured: bool = False,
) -> None:
    """Print a table for each data set, and the tests that belong to no published number.

    Args:
        console: Where to.
        records: All records and their folders.
        task: Only this task.
        only_measured: Leave out rows that were not run.
    """
    best = best_records(records)
    shown = [recipe for recipe in recipes() if task in (None, recipe.task)]
    if only_measured:
        measured = {row for row, _ in best}
        shown = [recipe for recipe in shown if recipe.id in measured]
    for dataset in dict.fromkeys(recipe.row.dataset for recipe in shown):
        of_it = [recipe for recipe in shown if recipe.row.dataset == dataset]
        console.print(_table(_TITLES[dataset], of_it, best))
    others = [(f, r) for f, r in records if not r.published and task in (None, r.task)]
    if others:
        table = Table(title='Other tests', title_justify='left', box=None)
        for heading in ('test', 'protocol', 'measured', 'files', 'folder'):
            table.add_column(heading, overflow='fold')
        for folder, record in others:
            metrics = ', '.join(f'{name} {value:.2f}' for name, value in record.metrics.items())
            table.add_row(
                record.row, protocol_text(record), metrics, f'{record.files:,}', str(folder)
            )
        console.print(table)


def print_all_records(
    console: Console, records: list[tuple[Path, Record]], task: str | None = None
) -> None:
    """Print each record, also those that :func:`best_records` leaves behind others.

    Args:
        console: Where to.
        records: All records and their folders, oldest first.
        task: Only this task.
    """
    table = Table(title='All records', title_justify='left', box=None)
    for heading in ('test', 'protocol', 'measured (published)', 'files', 'date', 'folder'):
        table.add_column(heading, overflow='fold')
    for folder, record in records:
        if task not in (None, record.task):
            continue
        metrics = []
        for name in dict.fromkeys([*record.published, *record.metrics]):
            words = f'{name} {record.metrics[name]:.2f}' if name in record.metrics else f'{name} -'
            published = record.published.get(name)
            metrics.append(words if published is None else f'{words} ({percent(published)})')
        table.add_row(
            record.row, protocol_text(record), ', '.join(metrics), f'{record.files:,}',
            record.date[:10], str(folder),
        )  # fmt: skip
    console.print(table)


def _table(title: str, of_it: list[Recipe], best: dict[tuple[str, str], Record]) -> Table:
    metrics = list(dict.fromkeys(name for recipe in of_it for name in recipe.metrics))
    table = Table(title=title, title_justify='left', box=None)
    table.add_column('row', no_wrap=True)
    for name in metrics:
        table.add_column(f'{name}\npublished', justify='right')
        table.add_column(f'{name}\nmeasured', justify='right')
    table.add_column('on', no_wrap=True)
    for recipe in of_it:
        cells, on = [recipe.id], ''
        for name in metrics:
            record = best.get((recipe.id, name))
            published = recipe.metrics.get(name)
            cells.append('' if published is None else percent(published))
            cells.append('' if published is None else measured_text(record, name))
            on = on or (record and f'{record.device}, {record.date[:10]}') or ''
        table.add_row(*cells, on)
    return table


def measured_text(record: Record | None, metric: str) -> str:
    """A measured number, with its interval and size if it is of a subset, or ``not run``."""
    if record is None:
        return NOT_RUN
    value = record.metrics.get(metric)
    if value is None:
        return f'none, n {record.files:,}'
    if record.comparable:
        return f'{value:.2f}'
    if metric in record.intervals:
        low, high = record.intervals[metric]
        return f'{value:.1f} [{low:.1f}, {high:.1f}], n {record.files:,}'
    return f'{value:.1f}, n {record.files:,}'
