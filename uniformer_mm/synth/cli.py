# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm make-data``: writes the synthetic world."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from ..console import plain_console, progress_bars
from .world import SIZES, TASKS, Outcome, make_data


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds ``make-data`` to the console command's subparsers."""
    parser = subparsers.add_parser(
        'make-data',
        description='Writes a small synthetic world (textured shapes, stick figures, moving '
        'shapes) in the folders that the configs expect. Deterministic by seed; adds tasks to a '
        'folder that it made, and leaves every other folder alone.',
    )
    parser.add_argument('root', metavar='DIR', help='data root to create (UNIFORMER_DATA)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--tasks',
        nargs='+',
        default=list(TASKS),
        metavar='TASK',
        help=f'of {", ".join(TASKS)}; all',
    )
    parser.add_argument('--size', default='small', help=f'{" or ".join(SIZES)}; %(default)s')
    parser.add_argument('--workers', type=int, help='threads; one per core')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a world that make-data made before'
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        args: What ``add_parser``'s parser returned.

    Returns:
        The exit status.

    Raises:
        ValueError: The request cannot be met.
    """
    outcome = _make_with_bars(args)
    _report(plain_console(), outcome)
    return 0


def _make_with_bars(args: argparse.Namespace) -> Outcome:
    with progress_bars() as bars:
        rows: dict[str, int] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in rows:
                rows[name] = bars.add_task(name, total=total)
            bars.update(rows[name], completed=done)

        return make_data(
            args.root, args.seed, args.tasks, args.size, args.overwrite, args.workers, advance
        )


def _report(console: Console, outcome: Outcome) -> None:
    if not outcome.written:
        console.print(f'{outcome.root} holds this world already; nothing to do', markup=False)
        return
    table = Table('task', 'train', 'val')
    for name in outcome.written:
        counts = outcome.marker['tasks'][name]
        table.add_row(name, str(counts['train']), str(counts['val']))
    console.print(table)
    console.print(f'Wrote {outcome.root}; use it with', markup=False)
    console.print(f'  export UNIFORMER_DATA={outcome.root}', markup=False)
