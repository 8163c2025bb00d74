# SPDX-License-Identifier: Apache-2.0
"""The console command ``uniformer-mm``.

Each subcommand lives in the package it belongs to, as a function that declares its options on
``subparsers`` and sets ``run`` (arguments in, exit status out) as the parser's default. Only the
module of the subcommand that is called gets imported.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from rich.console import Console
from rich.markup import escape

import uniformer_mm

SUBCOMMANDS = {
    'doctor': ('uniformer_mm.env.doctor:add_parser', 'check and repair the environment'),
    'make-data': ('uniformer_mm.synth.cli:add_parser', 'write the embedded synthetic data sets'),
    'zoo': ('uniformer_mm.weights.cli:add_zoo_parser', 'list the published weights'),
    'inspect': ('uniformer_mm.weights.cli:add_inspect_parser', 'say what a weight file holds'),
    'convert': ('uniformer_mm.weights.cli:add_convert_parser', 'turn weight files into each other'),
    'recipes': ('uniformer_mm.recipes.cli:add_recipes_parser', 'list the published results'),
    'config': ('uniformer_mm.recipes.cli:add_config_parser', 'find or write a config'),
    'verify': ('uniformer_mm.weights.cli:add_verify_parser', 'measure top-1 on ImageNet'),
    'reproduce': ('uniformer_mm.evaluation.cli:add_reproduce_parser', 'measure a published result'),
    'results': ('uniformer_mm.evaluation.cli:add_results_parser', 'measured beside published'),
    'report': ('uniformer_mm.evaluation.cli:add_report_parser', 'a finished test as one page'),
    'submit': ('uniformer_mm.submission.cli:add_submit_parser', 'write or check leaderboard files'),
    'score': ('uniformer_mm.submission.score_cli:add_score_parser', 'score saved predictions'),
}
"""Name of each subcommand: the function that declares it, and one line for ``--help``."""


class _Subcommands(argparse._SubParsersAction):
    """Takes the line for ``--help`` from the table, whoever declares the subcommand."""

    def add_parser(self, name: str, **kwargs) -> argparse.ArgumentParser:
        return super().add_parser(name, **{**kwargs, 'help': SUBCOMMANDS[name][1]})


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
        message = _in_options(' '.join(str(error).split()), set(_options(parser)))
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f'[bold red]uniformer-mm {args.command}: {escape(message)}[/]'
        )
        return 2


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, complete for the subcommand that `argv` names, a list of names for the rest."""
    parser = argparse.ArgumentParser(
        prog='uniformer-mm', description="UniFormer for OpenMMLab's five toolboxes."
    )
    parser.add_argument('--version', action='version', version=uniformer_mm.__version__)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    subparsers = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, action=_Subcommands
    )
    called = next((word for word in argv if not word.startswith('-')), None)
    for name, (target, _) in SUBCOMMANDS.items():
        if name == called:
            module, function = target.split(':')
            getattr(import_module(module), function)(subparsers)
        else:
            subparsers.add_parser(name)
    return parser


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
