# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``reproduce``, ``results`` and ``report`` of ``uniformer-mm``."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..recipes import TOOLBOXES
from ..weights.zoo import percent
from .data_lists import ORDERS
from .launch import TestFailedError
from .metrics import FUSIONS
from .protocol import ATTENTIONS, DATA_VARIABLE, Choices
from .record import Record, read_records
from .reproduce import DEFAULT_WORK_DIR, Test, reproduce, tests_of
from .tables import print_all_records, print_results
from .words import data_words, fusion_words, protocol_sentence, verdict_words

_OUTSIDE, _INTERRUPTED = 1, 130


def add_reproduce_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``reproduce``."""
    parser = subparsers.add_parser(
        'reproduce',
        description="Measure a row's published result by its official test. Exit status: 0 within "
        'the tolerance, or not comparable (a subset); 1 outside; 2 a mistake in the request.',
    )
    parser.add_argument('row', help='row id of uniformer-mm recipes, or a config file')
    parser.add_argument('--data', type=Path, help=f'root of the data sets ({DATA_VARIABLE}; data)')
    parser.add_argument('--weights', metavar='FILE', help="checkpoint (default: the row's own)")
    parser.add_argument('--limit', type=int, help='test a random subset of so many files')
    parser.add_argument('--seed', type=int, default=0, help='which subset')
    parser.add_argument('--gpus', type=int, metavar='K', help='0: CPU (default: one if there is)')
    parser.add_argument(
        '--attention', choices=list(ATTENTIONS), help='segmentation: attention when testing'
    )
    parser.add_argument('--multi-scale', action='store_true', help='segmentation: 6 scales, flip')
    parser.add_argument('--boxes', metavar='gt|FILE', help='pose: person boxes')
    parser.add_argument('--fusion', choices=FUSIONS, default=FUSIONS[0], help='video: of views')
    parser.add_argument('--class-order', choices=ORDERS, help='Kinetics: how the list numbers them')
    parser.add_argument('--classes', metavar='FILE', help='ImageNet: class ids of the folders')
    parser.add_argument(
        '--stock',
        action='store_true',
        help="the toolbox's metric, multi-scale model and stacking of views instead of this "
        "package's; the config's transforms, also those of uniformer_mm, stay",
    )
    parser.add_argument('--batch-size', type=int, help="files at once (default: the config's)")
    parser.add_argument('--workers', type=int, help='processes that load data')
    parser.add_argument(
        '--work-dir', type=Path, default=DEFAULT_WORK_DIR, help='results go below it; %(default)s'
    )
    parser.add_argument('--restart', action='store_true', help='throw earlier results away')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, metavar='K=V',
        help='other settings of the config',
    )  # fmt: skip
    parser.set_defaults(run=_reproduce)
    return parser


def add_results_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``results``."""
    parser = subparsers.add_parser(
        'results',
        description="All measured results as the papers' tables; 'not run' where there is none.",
    )
    parser.add_argument(
        'folder', nargs='?', type=Path, default=DEFAULT_WORK_DIR, help='work dir; %(default)s'
    )
    parser.add_argument('--task', choices=list(TOOLBOXES), help='rows of this task only')
    parser.add_argument('--measured', action='store_true', help='only rows with a result')
    parser.add_argument('--all', action='store_true', help='each record, not one for each row')
    parser.set_defaults(run=_results)
    return parser


def add_report_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``report``."""
    parser = subparsers.add_parser(
        'report',
        description='Turn the folder of a finished test into one HTML page: tables, confusions or '
        'precision-recall curves, worst and best samples, latency.',
    )
    parser.add_argument('folder', type=Path, help='as uniformer-mm reproduce named it')
    parser.add_argument('--output', type=Path, metavar='FILE', help='default: DIR/report.html')
    parser.set_defaults(run=_report)
    return parser


def _report(args: Namespace) -> int:
    from .report import write_report

    _console().print(str(write_report(args.folder, args.output)), markup=False)
    return 0


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _choices(args: Namespace) -> Choices:
    for name in ('batch_size', 'limit'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'{name}={value} must be at least 1.')
    return Choices(
        data=(args.data or Path(os.environ.get(DATA_VARIABLE, 'data'))).absolute(),
        limit=args.limit,
        seed=args.seed,
        multi_scale=args.multi_scale,
        boxes=args.boxes,
        fusion=args.fusion,
        class_order=args.class_order,
        classes=args.classes,
        stock=args.stock,
        batch_size=args.batch_size,
        workers=args.workers,
        overrides=args.cfg_options,
    )


def _reproduce(args: Namespace) -> int:
    choices = _choices(args)
    # mmengine's notes about reading configs belong into run.log, not into the table.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    records = []
    for test in tests_of(args.row, args.attention):
        try:
            folder, record = _with_bar(test, choices, args)
        except (TestFailedError, KeyboardInterrupt) as error:
            words = str(error) or 'interrupted; the same command goes on where it stopped.'
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            console.print(f'[red]{escape(words)}[/]')
            return 2 if isinstance(error, TestFailedError) else _INTERRUPTED
        print_record(_console(), record, folder)
        records.append(record)
    verdicts = [record.agrees for record in records]
    return 0 if any(verdicts) or None in verdicts else _OUTSIDE


def _with_bar(test: Test, choices: Choices, args: Namespace) -> tuple[Path, Record]:
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_console()) as progress:
        bar = progress.add_task(test.name, total=None)
        return reproduce(
            test,
            choices,
            lambda done, total: progress.update(bar, completed=done, total=total),
            weights=args.weights,
            gpus=args.gpus,
            work_dir=args.work_dir,
            restart=args.restart,
        )


def print_record(console: Console, record: Record, folder: Path) -> None:
    """Measured beside published, and what the numbers rest on."""
    table = Table(
        'metric', 'published', 'measured', 'difference', '95 % interval',
        title=f'{record.row} ({protocol_sentence(record)})', title_justify='left', box=None,
    )  # fmt: skip
    for name in dict.fromkeys([*record.metrics, *record.published]):
        value, published = record.metrics.get(name), record.published.get(name)
        interval = record.intervals.get(name)
        table.add_row(
            name,
            '' if published is None else percent(published),
            'none' if value is None else f'{value:.2f}',
            '' if None in (value, published) else f'{value - published:+.2f}',
            '{:.2f} to {:.2f}'.format(*interval) if interval else '',
        )
    console.print(table)
    facts = [
        ('verdict', verdict_words(record)),
        ('data', data_words(record)),
        ('data list', f'sha256 {record.list_sha256}'),
        ('weights', f'{record.weights}, sha256 {record.weights_sha256}'),
        ('class order', record.class_order),
        ('fusion', fusion_words(record)),
        ('intervals', record.interval_method if record.intervals else ''),
        *(('note', note) for note in record.notes),
        ('device', f'{record.device}, {record.seconds:.0f} s'),
        ('record', str(folder / 'record.json')),
    ]
    for name, value in facts:
        if value:
            console.print(f'[bold]{name.ljust(11)}[/]  {escape(value)}')


def _results(args: Namespace) -> int:
    if not args.folder.is_dir() and args.folder != DEFAULT_WORK_DIR:
        raise ValueError(f'{args.folder} is no folder; name one that reproduce wrote to.')
    records, refused = read_records(args.folder) if args.folder.is_dir() else ([], [])
    console = Console(highlight=False, width=160)
    if args.all:
        print_all_records(console, records, args.task)
    else:
        print_results(console, records, args.task, args.measured)
    for words in refused:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f'[yellow]left out: {escape(words)}[/]'
        )
    return 0
