# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``results`` and ``report`` of ``uniformer-mm``; the first needs no PyTorch."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from ..console import plain_console, print_error, table_console
from ..recipes import TOOLBOXES
from .record import DEFAULT_WORK_DIR, read_records
from .tables import print_all_records, print_results


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

    plain_console().print(str(write_report(args.folder, args.output)), markup=False)
    return 0


def _results(args: Namespace) -> int:
    if not args.folder.is_dir() and args.folder != DEFAULT_WORK_DIR:
        raise ValueError(f'{args.folder} is no folder; name one that reproduce wrote to.')
    records, refused = read_records(args.folder) if args.folder.is_dir() else ([], [])
    console = table_console(160)
    if args.all:
        print_all_records(console, records, args.task)
    else:
        print_results(console, records, args.task, args.measured)
    for words in refused:
        print_error(f'left out: {words}', style='yellow')
    return 0
