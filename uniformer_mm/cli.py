# SPDX-License-Identifier: Apache-2.0
"""The console command ``uniformer-mm``.

Each subcommand lives in the package it belongs to, as a function that declares its options on
``subparsers`` and sets ``run`` (arguments in, exit status out) as the parser's default. Only the
module of the subcommand that is called gets imported, and modules of subcommands that only list
tables import neither PyTorch nor mmengine.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import uniformer_mm


class Subcommand(NamedTuple):
    """One row of the table of subcommands.

    Attributes:
        target: ``module:function`` that declares it, relative to the package.
        summary: Its line in ``--help``.
        group: Heading that it stands under there, a key of :data:`GROUPS`.
    """

    target: str
    summary: str
    group: str


GROUPS = {
    'use': 'Use a network',
    'train': 'Train',
    'weights': 'Weights',
    'publish': 'Measure and publish',
    'environment': 'Environment',
}
"""Headings of ``--help``, in their order."""

SUBCOMMANDS = {
    'predict': Subcommand(
        '.inference.cli:add_predict_parser', 'see what a model sees in images and clips', 'use'
    ),
    'recipes': Subcommand('.recipes.cli:add_recipes_parser', 'list the published results', 'train'),
    'config': Subcommand('.recipes.cli:add_config_parser', 'find or write a config', 'train'),
    'make-data': Subcommand(
        '.synth.cli:add_parser', 'write the embedded synthetic data sets', 'train'
    ),
    'zoo': Subcommand('.weights.zoo.cli:add_zoo_parser', 'list the published weights', 'weights'),
    'inspect': Subcommand(
        '.weights.cli:add_inspect_parser', 'say what a weight file holds', 'weights'
    ),
    'convert': Subcommand(
        '.weights.cli:add_convert_parser', 'turn weight files into each other', 'weights'
    ),
    'verify': Subcommand(
        '.evaluation.cli:add_verify_parser', 'measure top-1 on ImageNet', 'publish'
    ),
    'reproduce': Subcommand(
        '.evaluation.cli:add_reproduce_parser', 'measure a published result', 'publish'
    ),
    'results': Subcommand(
        '.evaluation.results_cli:add_results_parser', 'measured beside published', 'publish'
    ),
    'report': Subcommand(
        '.evaluation.results_cli:add_report_parser', 'a finished test as one page', 'publish'
    ),
    'submit': Subcommand(
        '.submission.cli:add_submit_parser', 'write or check leaderboard files', 'publish'
    ),
    'score': Subcommand(
        '.submission.score_cli:add_score_parser', 'score saved predictions', 'publish'
    ),
    'doctor': Subcommand(
        '.env.doctor:add_parser', 'check and repair the environment', 'environment'
    ),
}
"""The subcommands by name, in the order of ``--help``."""


class _Subcommands(argparse._SubParsersAction):
    """Takes the line for ``--help`` from the table, whoever declares the subcommand."""

    def add_parser(self, name: str, **kwargs) -> argparse.ArgumentParser:
        return super().add_parser(name, **{**kwargs, 'help': SUBCOMMANDS[name].summary})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name); return the exit status.

    A ValueError is a user's mistake: it becomes one red line on stderr and exit status 2, unless
    ``--debug`` asks for the traceback.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(argv)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except ValueError as error:
        if args.debug:
            raise
        from .console import print_error

        message = _in_options(' '.join(str(error).split()), set(_options(parser)))
        print_error(f'uniformer-mm {args.command}: {message}')
        return 2


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, complete for the subcommand that `argv` names, a list of names for the rest."""
    parser = argparse.ArgumentParser(
        prog='uniformer-mm',
        usage='%(prog)s [--help] [--version] [--debug] COMMAND ...',
        description="UniFormer for OpenMMLab's five toolboxes.",
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=uniformer_mm.__version__)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    # The overview lists them under their headings, which argparse has not.
    subparsers = parser.add_subparsers(
        dest='command',
        metavar='COMMAND',
        prog='uniformer-mm',
        required=True,
        action=_Subcommands,
        help=argparse.SUPPRESS,
    )
    called = next((word for word in argv if not word.startswith('-')), None)
    if called is not None and called not in SUBCOMMANDS:
        close = difflib.get_close_matches(called, SUBCOMMANDS, n=1)
        hint = f'did you mean {close[0]!r}?' if close else 'uniformer-mm --help lists them.'
        parser.error(f'there is no command {called!r}; {hint}')
    for name in SUBCOMMANDS:
        if name == called:
            module, function = SUBCOMMANDS[name].target.split(':')
            getattr(import_module(module, __package__), function)(subparsers)
        else:
            subparsers.add_parser(name)
    return parser


def _overview() -> str:
    """The subcommands with their summaries, group by group."""
    width = max(map(len, SUBCOMMANDS))
    blocks = []
    for group, heading in GROUPS.items():
        lines = [
            f'  {name:{width}}  {row.summary}'
            for name, row in SUBCOMMANDS.items()
            if row.group == group
        ]
        if lines:
            blocks.append('\n'.join([f'{heading}:', *lines]))
    blocks.append('uniformer-mm COMMAND --help says more about one.')
    return '\n\n'.join(blocks)


def _in_options(message: str, options: set[str]) -> str:
    """The message with ``some_option=1`` and ``flag=True`` as the command line spells them."""

    def spell(match: re.Match) -> str:
        option = '--' + match[1].replace('_', '-')
        if option not in options:
            return match[0]
        return option if match[2] else f'{option}='

    # Not behind a comma or within brackets: that is a call in Python.
    return re.sub(r'(?<!\S)(?<!, )(\w+)=(True\b)?', spell, message)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _options(inner)
