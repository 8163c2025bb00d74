# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm doctor``: one line per check, with its fix; repairs released packages."""

import argparse

from rich.console import Console
from rich.markup import escape

from uniformer_mm.console import plain_console
from uniformer_mm.env.checks import CheckResult, ProbeRunner, Status, all_checks, run_checks
from uniformer_mm.env.patching import State
from uniformer_mm.env.repair import Repair
from uniformer_mm.env.repairs import REPAIRS

_STYLE = {Status.OK: 'green', Status.ABSENT: 'dim', Status.TROUBLE: 'bold red'}


def add_parser(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        'doctor',
        description='Checks versions, compiled operators and imports of everything uniformer_mm '
        'works with. Exit status: 0 when all is well, 1 when a line says trouble.',
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        '--fix',
        action='store_true',
        help='edit the installed files of packages with known defects, then check',
    )
    mode.add_argument(
        '--revert', action='store_true', help='give those files their released text back'
    )
    mode.add_argument(
        '--gpu',
        action='store_true',
        help="compare every fused block with its plain form on this machine's GPU and time both",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit status.

    Raises:
        ValueError: a file of the environment cannot be written.
    """
    console = plain_console()
    if args.gpu:
        # PyTorch and the networks; the other modes are about packages.
        from .gpu import check_gpu

        return 1 if check_gpu() else 0
    if args.revert:
        for repair in _installed_repairs():
            if repair.revert(repair.site_dir()):
                console.print(f'{repair.name}: released text restored')
        return 0
    if args.fix:
        for repair in _installed_repairs():
            if repair.state_in(repair.version()) is State.RELEASED:
                repair.apply(repair.site_dir())
                console.print(f'{repair.name}: repaired ({escape(repair.defect)})')
    return _check(console)


def _installed_repairs() -> list[Repair]:
    return [repair for repair in REPAIRS if repair.version() is not None]


def _check(console: Console) -> int:
    runner = ProbeRunner()
    troubles = 0
    try:
        for result in run_checks(all_checks(), runner):
            console.print(_line(result))
            troubles += result.status is Status.TROUBLE
    finally:
        runner.close()
    if troubles:
        console.print(f'{troubles} issue{"s" * (troubles > 1)} to fix', style='bold red')
        return 1
    console.print('all is well', style='green')
    return 0


def _line(result: CheckResult) -> str:
    style = _STYLE[result.status]
    line = f'[{style}]{result.status.value:8}[/] {result.name:22} {escape(result.detail)}'
    if result.fix and result.status is Status.TROUBLE:
        line += f'  [bold]fix:[/] {escape(result.fix)}'
    return line
