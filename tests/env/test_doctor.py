# SPDX-License-Identifier: Apache-2.0
"""The doctor as a command, and that the supported ranges are stated once."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement as Pep508
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT
from tests.env.conftest import SITE, record_hash, released_hashes
from uniformer_mm.env import checks
from uniformer_mm.env.checks import ProbeRunner, Status, check_version
from uniformer_mm.env.repairs import REPAIRS
from uniformer_mm.env.versions import PYTHON_RANGE, REQUIREMENTS, Requirement

TOOLBOXES = {
    'mmcv': 'mmcv',
    'mmdet': 'mmdet',
    'mmseg': 'mmsegmentation',
    'mmpose': 'mmpose',
    'mmaction': 'mmaction2',
    'mmpretrain': 'mmpretrain',
    'mim': 'openmim',
    'torchvision': 'torchvision',
}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    return parser


def declared_requirements() -> dict[str, set[SpecifierSet]]:
    """Every range in setup.cfg, of install_requires and of all extras."""
    parser = setup_cfg()
    lines = parser['options']['install_requires'].splitlines()
    for extra, text in parser['options.extras_require'].items():
        if extra not in ('dev', 'all'):
            lines += text.splitlines()
    ranges: dict[str, set[SpecifierSet]] = {}
    for line in lines:
        if line.strip() and not line.startswith('#'):
            requirement = Pep508(line)
            ranges.setdefault(requirement.name, set()).add(requirement.specifier)
    return ranges


def test_setup_cfg_states_the_ranges_of_the_doctor():
    declared = declared_requirements()
    known = {row.name: SpecifierSet(row.range) for row in REQUIREMENTS}
    unconstrained = {'ftfy', 'regex', 'gdown'}
    assert {name: ranges for name, ranges in declared.items() if name not in unconstrained} == {
        name: {known[name]} for name in declared if name not in unconstrained
    }
    assert set(known) <= set(declared)
    assert SpecifierSet(setup_cfg()['options']['python_requires']) == SpecifierSet(PYTHON_RANGE)


def test_lock_lies_within_the_ranges():
    lock = (ROOT / 'requirements' / 'lock.txt').read_text()
    source = (ROOT / 'requirements' / 'from-source.txt').read_text()
    pins = [
        Pep508(line)
        for line in (lock + source).splitlines()
        if line.strip() and not line.lstrip().startswith('#')
    ]
    versions = {pin.name: str(pin.specifier).removeprefix('==') for pin in pins}
    for row in REQUIREMENTS:
        found = [versions[name] for name in (row.name, *row.aliases) if name in versions]
        assert len(found) == 1, row.name
        assert SpecifierSet(row.range).contains(found[0]), row.name


@pytest.mark.parametrize(
    ('row', 'status', 'words'),
    [
        (Requirement('pytest', '>=1'), Status.OK, metadata.version('pytest')),
        (Requirement('pytest', '<1', reason='too new'), Status.TROUBLE, 'outside <1 (too new)'),
        (Requirement('no-such-thing', '>=1', required=True), Status.TROUBLE, 'not installed'),
        (Requirement('no-such-thing', '>=1', reason='pose'), Status.ABSENT, 'optional: pose'),
        (Requirement('no-such-thing', '>=1', aliases=('pytest',)), Status.OK, '.'),
    ],
)
def test_version_finding(row, status, words):
    result = check_version(row, None)
    assert (result.status, words in result.detail) == (status, True)
    assert status is Status.OK or f'pip install "{row.name}{row.range}"' in result.fix


def test_failing_probe_is_one_line(tmp_path, monkeypatch):
    program = tmp_path / 'probes.py'
    program.write_text(
        'import os, sys\n'
        "if sys.argv[1] == 'crash': os.abort()\n"
        "if sys.argv[1] == 'fail': print('noise', file=sys.stderr); raise ValueError('the cause')\n"
    )
    monkeypatch.setattr(checks.probes, '__file__', str(program))
    runner = ProbeRunner()
    assert runner.error('fine') is None
    assert runner.error('fail') == 'ValueError: the cause'
    assert runner.error('crash') == 'the process died of signal 6'
    runner.close()


@pytest.fixture(scope='module')
def bare_environment(tmp_path_factory) -> Path:
    """An environment without toolboxes, with mmengine as it was released; its Python."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    site = next((folder / 'lib').glob('python3*/site-packages'))
    absent = set(TOOLBOXES) | {
        Path(metadata.distribution(name)._path).name
        for name in TOOLBOXES.values()
        if any(metadata.distributions(name=name))
    }
    for entry in SITE.iterdir():
        if entry.name not in absent and entry.name != 'mmengine' and entry.suffix != '.pth':
            (site / entry.name).symlink_to(entry)
    shutil.copytree(SITE / 'mmengine', site / 'mmengine')
    for repair in REPAIRS:
        if repair.module == 'mmengine':
            repair.revert(site)
    return folder / 'bin' / 'python'


def doctor(python: Path, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """Exit status and the lines by their first word."""
    command = [python, '-c', 'from uniformer_mm.cli import main; raise SystemExit(main())']
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'COLUMNS': '40'}
    done = subprocess.run(
        [*command, 'doctor', *arguments], capture_output=True, text=True, env=env, timeout=600
    )
    assert done.stderr == ''
    lines: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        lines.setdefault(line.split()[0], []).append(line)
    return done.returncode, lines


def test_doctor_without_toolboxes(bare_environment):
    status, lines = doctor(bare_environment)
    assert status == 1
    troubles = {line.split()[1]: line for line in lines['trouble']}
    assert set(troubles) == {'mmengine-weights-only', 'mmengine-gloo-cpu'}
    assert all('fix: uniformer-mm doctor --fix' in line for line in troubles.values())
    assert {line.split()[1] for line in lines['absent']} >= {'mmdet', 'mmaction2', 'mmcv'}

    status, lines = doctor(bare_environment, '--fix')
    assert status == 0
    assert 'trouble' not in lines

    status, lines = doctor(bare_environment, '--revert')
    assert status == 0
    site = next(bare_environment.parents[1].glob('lib/python3*/site-packages'))
    hashes = released_hashes('mmengine')
    for repair in REPAIRS:
        for edit in repair.edits if repair.module == 'mmengine' else ():
            assert record_hash(site / edit.path) == hashes[edit.path]
