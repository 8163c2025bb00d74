# SPDX-License-Identifier: Apache-2.0
"""The console command: its table, its errors, its exit statuses."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from uniformer_mm import __version__
from uniformer_mm.cli import GROUPS, SUBCOMMANDS, Subcommand, build_parser, main


def run(args) -> int:
    raise ValueError(f'--count={args.count} is\n   not a count')


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser('stumble')
    parser.add_argument('--count', default=0)
    parser.set_defaults(run=run)


@pytest.fixture
def stumble(monkeypatch):
    row = Subcommand(f'{__name__}:add_parser', 'always fails', 'environment')
    monkeypatch.setitem(SUBCOMMANDS, 'stumble', row)


def test_mistake_is_one_line_and_exit_status_2(stumble, capsys):
    assert main(['stumble', '--count', '[bold]']) == 2
    output = capsys.readouterr()
    assert output.out == ''
    assert output.err == 'uniformer-mm stumble: --count=[bold] is not a count\n'


def test_debug_shows_the_traceback(stumble):
    with pytest.raises(ValueError, match='not a count'):
        main(['--debug', 'stumble'])


def complain(args) -> int:
    raise ValueError(args.words)


def add_nested_parser(subparsers) -> None:
    parser = subparsers.add_parser('stumble', help='another summary')
    parser.add_argument('words')
    parser.add_argument('--ema', action='store_true')
    deeper = parser.add_subparsers().add_parser('deeper')
    deeper.add_argument('--class-order')
    parser.set_defaults(run=complain)


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ("class_order='x' is not known", "--class-order='x' is not known"),
        ('f.pth: pass ema=True to use them', 'f.pth: pass --ema to use them'),
        ('load(model, file, ema=True) and dict(ema=True)', None),  # Python, not an option
        ("words='x', prefix='y', a/ema=True/b and --class-order=z", None),  # no options here
    ],
)
def test_arguments_are_named_as_options(monkeypatch, capsys, words, said):
    row = Subcommand(f'{__name__}:add_nested_parser', 'fails', 'environment')
    monkeypatch.setitem(SUBCOMMANDS, 'stumble', row)
    assert main(['stumble', words, 'deeper']) == 2
    assert capsys.readouterr().err == f'uniformer-mm stumble: {said or words}\n'


def test_a_summary_stands_in_the_table_alone(monkeypatch):
    row = Subcommand(f'{__name__}:add_nested_parser', 'always fails', 'environment')
    monkeypatch.setitem(SUBCOMMANDS, 'stumble', row)
    for argv in ([], ['stumble']):
        text = build_parser(argv).format_help()
        assert 'always fails' in text and 'another summary' not in text


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


@pytest.mark.parametrize(
    'name', ['make-data', 'zoo', 'inspect', 'convert', 'verify', 'reproduce', 'results', 'report']
)
def test_every_option_has_a_help(name):
    waiting = [build_parser([name])._subparsers._group_actions[0].choices[name]]
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting.extend(action.choices.values())
            else:
                assert action.help, (name, action.dest)


def test_version_and_unknown_command(capsys):
    with pytest.raises(SystemExit, match='0'):
        main(['--version'])
    assert capsys.readouterr().out.strip() == __version__
    with pytest.raises(SystemExit, match='2'):
        main(['no-such-command'])
    assert "there is no command 'no-such-command'; uniformer-mm --help" in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        main(['recipe'])
    assert "there is no command 'recipe'; did you mean 'recipes'?" in capsys.readouterr().err
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


def test_help_lists_every_subcommand_under_the_heading_of_its_group():
    heading, listed = None, {}
    for line in build_parser([]).format_help().splitlines():
        if line.endswith(':') and not line.startswith(' '):
            heading = line[:-1]
        elif line.startswith('  ') and line.split()[0] in SUBCOMMANDS:
            listed[line.split()[0]] = heading
    assert listed == {name: GROUPS[row.group] for name, row in SUBCOMMANDS.items()}


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, '-m', 'uniformer_mm', '--version'], capture_output=True, text=True
    )
    assert done.stdout.strip() == __version__, done.stderr


HEAVY = ['mmcv', 'mmengine', 'numpy', 'torch', 'triton']


@pytest.mark.parametrize(
    ('words', 'most'),
    [
        (None, 80),
        (['--help'], 100),
        (['recipes'], 300),
        (['zoo'], 300),
        (['zoo', 'show', 'cls/b'], 300),
        (['config', 'cls/b'], 300),
        (['results'], 400),
        (['no-such-command'], 100),
    ],
)
def test_what_only_lists_imports_neither_pytorch_nor_mmengine(words, most):
    """Modules beside the interpreter's own, whose number says what start-up costs."""
    program = (
        'import contextlib, sys; before = set(sys.modules)\n'
        'import uniformer_mm\n'
        f'words = {words!r}\n'
        'if words is None:\n'
        '    uniformer_mm.list_models\n'
        'else:\n'
        '    from uniformer_mm.cli import main\n'
        '    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):\n'
        '        main(words)\n'
        'new = set(sys.modules) - before\n'
        f'print(len(new), *sorted(set({HEAVY!r}) & new))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    count, *heavy = done.stdout.split()
    assert heavy == []
    assert int(count) <= most
