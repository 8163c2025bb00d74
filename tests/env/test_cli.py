# SPDX-License-Identifier: Apache-2.0
"""The console command: its table, its errors, its exit statuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from uniformer_mm import __version__
from uniformer_mm.cli import SUBCOMMANDS, build_parser, main


def run(args) -> int:
    raise ValueError(f'--count={args.count} is\n   not a count')


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser('stumble')
    parser.add_argument('--count', default=0)
    parser.set_defaults(run=run)


@pytest.fixture
def stumble(monkeypatch):
    monkeypatch.setitem(SUBCOMMANDS, 'stumble', (f'{__name__}:add_parser', 'always fails'))


def test_mistake_is_one_line_and_exit_status_2(stumble, capsys):
    assert main(['stumble', '--count', '[bold]']) == 2
    output = capsys.readouterr()
    assert output.out == ''
    assert output.err == 'uniformer-mm stumble: --count=[bold] is not a count\n'


def test_debug_shows_the_traceback(stumble):
    with pytest.raises(ValueError, match='not a count'):
        main(['--debug', 'stumble'])


def test_every_subcommand_is_declared_and_runs():
    for name in SUBCOMMANDS:
        parser = build_parser([name])
        subparser = parser._subparsers._group_actions[0].choices[name]
        if subparser._subparsers is None:
            leaves = [subparser]
        else:
            leaves = subparser._subparsers._group_actions[0].choices.values()
        for leaf in leaves:
            run = leaf.get_default('run') or subparser.get_default('run')
            assert callable(run), leaf.prog


def test_version_and_unknown_command(capsys):
    with pytest.raises(SystemExit, match='0'):
        main(['--version'])
    assert capsys.readouterr().out.strip() == __version__
    with pytest.raises(SystemExit, match='2'):
        main(['no-such-command'])
    with pytest.raises(SystemExit, match='2'):
        main([])


def test_only_the_called_module_is_imported():
    program = (
        'import sys; from uniformer_mm.cli import build_parser; before = set(sys.modules); '
        "build_parser(['--help']); "
        "print(sorted(name for name in set(sys.modules) - before if 'uniformer_mm' in name))"
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr
