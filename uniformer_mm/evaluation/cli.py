# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``reproduce`` and ``verify`` of ``uniformer-mm``."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from ..console import plain_console, print_error, print_pairs, progress_bars
from ..weights.zoo import percent
from ..weights.zoo.cli import ROW_HELP
from .metrics.views import FUSIONS
from .record import DEFAULT_WORK_DIR, Record
from .running.data_lists import ORDERS
from .running.launch import TestFailedError
from .running.protocol import ATTENTIONS, DATA_VARIABLE, Choices
from .running.reproduce import Test, reproduce, tests_of
from .text import data_text, fusion_text, protocol_text, verdict_text
from .verdict import TOLERANCES, agreement_text
from .verify import IMAGENET, verify_row

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


def add_verify_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``verify``."""
    parser = subparsers.add_parser(
        'verify',
        description="Measure a classification row's top-1 on ImageNet's validation images with its "
        'test protocol, without a toolbox. Exit status: 0 within the tolerance, or not comparable; '
        '1 outside; 2 a mistake in the request.',
    )
    parser.add_argument('row', metavar='ROW', help=f'of image classification; {ROW_HELP}')
    parser.add_argument('--data', required=True, help='folder of images, one subfolder a class')
    parser.add_argument('--checkpoint', help="file to use instead of the row's own")
    parser.add_argument(
        '--classes', metavar='FILE', help='class ids of the subfolders, if they are not all'
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images; %(default)s')
    parser.add_argument(
        '--workers', type=int, default=2, help='processes that decode images; %(default)s'
    )
    parser.add_argument(
        '--device', default='cpu', help='where the network runs, as cuda; %(default)s'
    )
    parser.set_defaults(run=_verify)
    return parser


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
            print_error(
                str(error) or 'interrupted; the same command goes on where it stopped.', style='red'
            )
            return 2 if isinstance(error, TestFailedError) else _INTERRUPTED
        print_record(plain_console(), record, folder)
        records.append(record)
    verdicts = [record.agrees for record in records]
    return 0 if any(verdicts) or None in verdicts else _OUTSIDE


def _with_bar(test: Test, choices: Choices, args: Namespace) -> tuple[Path, Record]:
    with progress_bars(plain_console()) as progress:
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
        title=f'{record.row} ({protocol_text(record)})', title_justify='left', box=None,
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
    pairs = [
        ('verdict', verdict_text(record)),
        ('data', data_text(record)),
        ('data list', f'sha256 {record.list_sha256}'),
        ('weights', f'{record.weights}, sha256 {record.weights_sha256}'),
        ('class order', record.class_order),
        ('fusion', fusion_text(record)),
        ('intervals', record.interval_method if record.intervals else ''),
        *(('note', note) for note in record.notes),
        ('device', f'{record.device}, {record.seconds:.0f} s'),
        ('record', str(folder / 'record.json')),
    ]
    print_pairs([pair for pair in pairs if pair[1]], console, width=11)


def _verify(args: Namespace) -> int:
    measured = verify_row(
        args.row,
        args.data,
        checkpoint=args.checkpoint,
        classes=args.classes,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
    )
    pairs = [('row', measured[0].row), ('published top-1', f'{measured[0].published:.1f}')]
    for result in measured:
        norm = 'ImageNet mean/std' if result.normalisation == IMAGENET else '0.5 / 0.5'
        words = f'{result.top1:.2f} (top-5 {result.top5:.2f}, {result.images:,} images, {norm})'
        pairs.append(('measured top-1', words))
    verdicts = [result.agrees for result in measured]
    verdict = 'no verdict: not the whole validation set'
    if None not in verdicts:
        verdict = agreement_text(['top1'], any(verdicts), TOLERANCES['cls'])
    pairs.append(('verdict', verdict))
    print_pairs(pairs)
    return 0 if any(verdicts) or None in verdicts else 1
