# SPDX-License-Identifier: Apache-2.0
"""The set-up's steps: finding Python, checks before work, the wheel cache, leftovers, the stamp."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
import setup_env
from setup_steps import mmcv_wheel, preflight
from setup_steps.display import Display, bar
from setup_steps.mmcv_wheel import Build, Target, choose_device
from setup_steps.packages import Pip
from setup_steps.process import MARK, Job, SetupError, end_marked_processes, wait
from setup_steps.venv import INPUTS, Environment

from tests.conftest import ROOT

RELEASE = sys.version_info[:2]


# Finding a Python -------------------------------------------------------------------------------


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def no_pyenv(monkeypatch, tmp_path):
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path / 'no-pyenv'))


def test_python_that_does_not_run_is_passed_over(tmp_path, no_pyenv):
    """A pyenv shim exists and fails; an unsupported release runs; the third one fits."""
    broken, old, good = (tmp_path / name for name in ('broken', 'old', 'good'))
    script(
        broken / 'python3.11',
        '#!/bin/sh\necho "pyenv: python3.11: command not found" >&2\nexit 127\n',
    )
    script(old / 'python3', '#!/bin/sh\necho 3 8 /usr/bin/python3.8\n')
    script(good / 'python3', f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path = os.pathsep.join(map(str, (broken, old, good)))
    found = setup_env.find_python(str(tmp_path / '.venv'), path)
    answer = subprocess.check_output(
        [found, '-c', 'import sys; print(sys.version_info[:2], sys.prefix == sys.base_prefix)'],
        text=True,
    )
    assert answer.strip() == f'{RELEASE} True'


def test_preferred_release_wins_and_existing_environment_decides(tmp_path, no_pyenv):
    folder = tmp_path / 'bin'
    for minor in (10, 12, 11):
        script(folder / f'python3.{minor}', f'#!/bin/sh\necho 3 {minor} base3.{minor}\n')
    environment = tmp_path / '.venv'
    assert setup_env.find_python(str(environment), str(folder)) == 'base3.11'
    script(environment / 'bin' / 'python', '#!/bin/sh\necho 3 12 base3.12\n')
    assert setup_env.find_python(str(environment), str(folder)) == 'base3.12'
    script(environment / 'bin' / 'python', '#!/bin/sh\necho 3 13 base3.13\n')
    assert setup_env.find_python(str(environment), str(folder)) == 'base3.11'


def test_pyenv_release_that_is_not_selected_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    script(tmp_path / 'versions' / '3.10.13' / 'bin' / 'python', '#!/bin/sh\necho 3 10 it\n')
    assert setup_env.find_python(str(tmp_path / '.venv'), str(tmp_path / 'empty')) == 'it'


def test_no_python_is_an_error_that_says_what_to_install(tmp_path):
    """The bootstrap itself, in a copy, so that no environment and no pyenv is near."""
    shutil.copytree(ROOT / 'tools', tmp_path / 'tools')
    env = {'PATH': str(tmp_path / 'empty'), 'PYENV_ROOT': str(tmp_path)}
    command = [sys.executable, str(tmp_path / 'tools' / 'setup_env.py')]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 2
    assert 'apt-get install python3.11' in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Checks before work -----------------------------------------------------------------------------


def test_compiler_that_works(tmp_path):
    assert preflight.check_compiler(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_missing_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    assert 'there is no C++ compiler (c++); install one, for example: apt-get install g++' in (
        preflight.check_compiler(tmp_path)
    )


def test_compiler_that_is_too_old(tmp_path, monkeypatch):
    script(
        tmp_path / 'c++',
        '#!/bin/sh\necho "c++: error: unrecognized option \'-std=c++20\'" >&2\nexit 1\n',
    )
    monkeypatch.setenv('CXX', str(tmp_path / 'c++'))
    problem = preflight.check_compiler(tmp_path)
    assert "unrecognized option '-std=c++20'" in problem
    assert 'g++ 11 or newer' in problem


def test_missing_headers(tmp_path):
    assert f'python{RELEASE[0]}.{RELEASE[1]}-dev' in preflight.check_headers(tmp_path)
    (tmp_path / 'Python.h').touch()
    assert preflight.check_headers(tmp_path) is None


def test_missing_venv_module():
    assert preflight.check_venv() is None
    problem = preflight.check_venv(('venv', 'no_such_module'))
    assert 'no module no_such_module' in problem
    assert '-venv' in problem


def test_full_disk(tmp_path):
    free_gib = shutil.disk_usage(tmp_path).free / 2**30
    assert preflight.check_disk(tmp_path, free_gib / 2) is None
    problem = preflight.check_disk(tmp_path, free_gib + 10)
    assert f'{free_gib + 10:.0f} GiB' in problem
    assert str(tmp_path) in problem


@pytest.mark.parametrize(
    ('cores', 'memory_gib', 'jobs'), [(2, 24, 2), (64, 13, 8), (4, 0.5, 1), (1, 100, 1)]
)
def test_compile_jobs_fit_cores_and_memory(cores, memory_gib, jobs):
    assert preflight.compile_jobs(cores, memory_gib) == jobs


def test_control_group_limits_the_memory(tmp_path):
    (tmp_path / 'proc').mkdir()
    (tmp_path / 'proc/meminfo').write_text('MemTotal: 1 kB\nMemAvailable: 33554432 kB\n')
    assert preflight.available_memory_gib(tmp_path) == 32
    group = tmp_path / 'sys/fs/cgroup'
    group.mkdir(parents=True)
    (group / 'memory.max').write_text('max\n')
    (group / 'memory.current').write_text('1073741824\n')
    assert preflight.available_memory_gib(tmp_path) == 32
    (group / 'memory.max').write_text('5368709120\n')
    assert preflight.available_memory_gib(tmp_path) == 4


def test_all_that_is_missing_is_said_at_once_before_any_work(tmp_path):
    """The real program on a copy of the repository, on a PATH without compiler."""
    for name in ('tools', 'requirements'):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python3').symlink_to(sys._base_executable)
    env = {'PATH': str(tmp_path / 'bin'), 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
    env |= {'CXX': 'no-such-compiler'}
    command = [sys._base_executable, str(tmp_path / 'tools' / 'setup_env.py')]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert 'no C++ compiler (no-such-compiler)' in done.stderr
    assert list((tmp_path / '.venv').iterdir()) == []
    assert not (tmp_path / 'cache').exists()


# The wheel of mmcv ------------------------------------------------------------------------------

TARGET = Target(
    'mmcv-version', 'patch', '2.14.1+cu130', 'cpu', 'cpython-311-x86_64-linux-gnu', 'glibc-2.36'
)


@pytest.mark.parametrize('field', [field.name for field in fields(Target)])
def test_cache_key_depends_on_everything(field):
    changed = replace(TARGET, **{field: 'other'})
    assert changed.key != TARGET.key
    assert '/' not in replace(TARGET, **{field: 'a/../b'}).key


@pytest.mark.parametrize(
    ('facts', 'device', 'reason'),
    [
        (dict(gpu=False), 'cpu', 'no GPU'),
        (dict(gpu=True, toolkit=None), 'cpu', 'no CUDA toolkit'),
        (dict(gpu=True, toolkit='12.4', torch_cuda='13.0'), 'cpu', 'toolkit is 12.4'),
        (
            dict(gpu=True, toolkit='13.1', torch_cuda='13.0', arches=['8.9', '9.0']),
            'cuda13.1-sm8.9+9.0',
            'CPU and CUDA operators',
        ),
    ],
)
def test_cuda_operators_only_with_gpu_and_matching_toolkit(facts, device, reason):
    chosen, why = choose_device(facts)
    assert chosen == device
    assert reason in why


def test_compiler_variables_name_only_the_present_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '7.0')
    environment = Environment(tmp_path)
    cuda = Build(environment, replace(TARGET, device='cuda13.0-sm8.9+9.0')).variables()
    assert (cuda['TORCH_CUDA_ARCH_LIST'], cuda['FORCE_CUDA']) == ('8.9;9.0', '1')
    cpu = Build(environment, TARGET).variables()
    assert (cpu['CUDA_VISIBLE_DEVICES'], cpu['FORCE_CUDA']) == ('', '0')


def make_wheel(path: Path, operators: str = 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(operators, os.urandom(4096))
    return path


def test_cache_returns_what_was_stored_for_the_same_key_only(tmp_path):
    cache = tmp_path / 'cache'
    wheel = make_wheel(tmp_path / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl')
    assert mmcv_wheel.cached_wheel(cache, TARGET.key) is None
    stored = mmcv_wheel.store(wheel, cache, TARGET.key)
    assert stored.read_bytes() == wheel.read_bytes()
    assert mmcv_wheel.cached_wheel(cache, TARGET.key) == stored
    assert mmcv_wheel.cached_wheel(cache, replace(TARGET, torch='2.13.0').key) is None
    assert [path.name for path in stored.parent.iterdir()] == [wheel.name]


def test_damaged_wheel_and_wheel_without_operators_are_not_used(tmp_path):
    whole = make_wheel(tmp_path / TARGET.key / 'mmcv-2.1.0-a.whl')
    whole.write_bytes(whole.read_bytes()[:2000])
    flipped = make_wheel(tmp_path / TARGET.key / 'mmcv-2.1.0-d.whl')
    content = bytearray(flipped.read_bytes())
    content[2000] ^= 1
    flipped.write_bytes(content)
    make_wheel(tmp_path / TARGET.key / 'mmcv-2.1.0-b.whl', operators='mmcv/__init__.py')
    # What a killed copy leaves behind.
    make_wheel(tmp_path / TARGET.key / '.123-mmcv-2.1.0-c.whl')
    assert mmcv_wheel.cached_wheel(tmp_path, TARGET.key) is None


def test_cache_that_cannot_be_written_costs_the_cache_only(tmp_path):
    wheel = make_wheel(tmp_path / 'mmcv-2.1.0-x.whl')
    (tmp_path / 'cache').write_text('a file where the folder should be')
    assert mmcv_wheel.store(wheel, tmp_path / 'cache', TARGET.key) == wheel


def test_cached_wheel_is_recognised_before_torch_can_be_asked(tmp_path):
    soabi = mmcv_wheel.sysconfig.get_config_var('SOABI')
    target = Target('2.1.0', mmcv_wheel.PATCH, '2.14.1+cu130', 'cpu', soabi, 'glibc-2.36')
    assert not mmcv_wheel.may_be_cached(tmp_path, '2.1.0', '2.14.1')
    make_wheel(tmp_path / target.key / 'mmcv-2.1.0-x.whl')
    assert mmcv_wheel.may_be_cached(tmp_path, '2.1.0', '2.14.1')
    assert not mmcv_wheel.may_be_cached(tmp_path, '2.1.0', '2.13.0')


@pytest.mark.parametrize(
    ('torch', 'standard'), [('2.14.1+cu130', '-std=c++20'), ('2.9.0', '-std=c++17')]
)
def test_source_asks_for_the_standard_that_torch_demands(tmp_path, torch, standard):
    (tmp_path / 'setup.py').write_text("cxx = ['-std=c++17']\n")
    for _ in range(2):
        mmcv_wheel.patch_source(tmp_path, torch)
        assert (tmp_path / 'setup.py').read_text() == f"cxx = ['{standard}']\n"


# Progress ---------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ninja(done: int, name: str = 'nms.cpp', total: int = 77) -> str:
    return f'  [{done}/{total}] c++ -MMD -MF a.o.d -c mmcv/ops/csrc/pytorch/{name} -o a.o'


def test_ninja_counter_becomes_a_bar_with_an_estimate(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(mmcv_wheel.time, 'monotonic', lambda: now[0])
    monkeypatch.setenv('MAX_JOBS', '1')
    build = Build(Environment(tmp_path), TARGET)
    assert build._status('mmcv', '  running build_ext') is None
    pybind = mmcv_wheel.FILE_COSTS['pybind.cpp']
    left = (76 + pybind - 1) * mmcv_wheel.FILE_SECONDS
    assert build._status('mmcv', ninja(1)) == f'mmcv {bar(1, 77, left)}'
    # Files that take half of what was believed: the estimate falls to what was measured.
    for done in range(2, 60):
        now[0] += mmcv_wheel.FILE_SECONDS / 2
        shown = build._status('mmcv', ninja(done))
    left = float(shown.split('about ')[1].split()[0])
    measured = (77 - 59 + pybind - 1) * mmcv_wheel.FILE_SECONDS / 2
    assert measured < left < 1.2 * measured


@pytest.mark.parametrize('seconds', [0.5, 3.0, 30.0])
@pytest.mark.parametrize('costly_at', [2, 40, 76])
def test_estimate_never_grows_and_ends_at_zero(monkeypatch, seconds, costly_at):
    now = [0.0]
    monkeypatch.setattr(mmcv_wheel.time, 'monotonic', lambda: now[0])
    progress, found = mmcv_wheel.Progress(), []
    for done in range(1, 78):
        cost = mmcv_wheel.FILE_COSTS['pybind.cpp'] if done == costly_at else 1.0
        now[0] += seconds * cost
        found.append(progress.left_s(done, 77, 2, cost))
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0 < found[-2]


def test_headers_are_compiled_first_where_the_compiler_is_gcc(tmp_path, monkeypatch):
    environment = Environment(tmp_path)
    build = Build(environment, TARGET)
    source = environment.mmcv_build / TARGET.key / f'mmcv-{TARGET.mmcv}'
    source.mkdir(parents=True)
    (source / 'setup.py').write_text("cxx = ['-std=c++20']\n")
    for macros, steps in (('__GNUC__', 2), ('__GNUC__ __clang__', 1)):
        script(tmp_path / 'c++', f'#!/bin/sh\necho {macros}\n')
        monkeypatch.setenv('CXX', str(tmp_path / 'c++'))
        assert len(build.steps()) == steps
        assert ('-include' in build.variables()['CFLAGS']) == (steps == 2)


def test_compiled_headers_are_what_gcc_takes(tmp_path, monkeypatch):
    """The real command on a small header; GCC says so where it cannot use the result."""
    if not mmcv_wheel.is_gcc(preflight.compiler()):
        pytest.skip('the compiler is not GCC')
    monkeypatch.setattr(mmcv_wheel, 'PRECOMPILED', 'vector')
    environment = Environment(tmp_path)
    environment.folder.mkdir()
    environment.logs.mkdir()
    monkeypatch.setattr(environment, 'python', Path(sys.executable))
    build = Build(environment, TARGET)
    source = environment.mmcv_build / TARGET.key / f'mmcv-{TARGET.mmcv}'
    source.mkdir(parents=True)
    (source / 'setup.py').write_text("cxx = ['-std=c++17']\n")
    wait(Display(io.StringIO()), [build.precompile()])
    (tmp_path / 'a.cpp').write_text('std::vector<int> values;\n')
    flags = build.variables()['CFLAGS'].replace('-w', '-Winvalid-pch -Werror').split()
    command = [preflight.compiler(), *flags, '-fPIC', '-DTORCH_EXTENSION_NAME=_ext']
    for standard, taken in (('-std=c++17', True), ('-std=c++20', False)):
        done = subprocess.run(
            [*command, standard, '-c', 'a.cpp', '-o', 'a.o'],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 0) == taken, done.stderr


def test_bar():
    assert bar(0, 4, width=8) == '[........]   0 % (0/4)'
    assert bar(3, 4, 10.4, width=8) == '[######..]  75 % (3/4), about 10 s left'
    assert bar(4, 4, 0.0, width=8) == '[########] 100 % (4/4), about 0 s left'


def test_log_gets_a_line_every_quarter_minute_and_a_terminal_one_line():
    now = [0.0]
    log, terminal = io.StringIO(), Terminal()
    displays = [Display(stream, clock=lambda: now[0]) for stream in (log, terminal)]
    for display in displays:
        display.phase('compiling')
    for second in range(40):
        now[0] = float(second)
        for display in displays:
            display.status(f'{second} done')
    assert log.getvalue().splitlines() == [
        '[   0 s] compiling',
        '[  15 s]   15 done',
        '[  30 s]   30 done',
    ]
    assert terminal.getvalue().count('\n') == 1
    assert terminal.getvalue().endswith('\r\x1b[K[  39 s] 39 done')


# Jobs -------------------------------------------------------------------------------------------


def job(tmp_path, text, title='a step'):
    environment = {**os.environ, MARK: str(tmp_path / '.venv')}
    return lambda: Job(title, ['sh', '-c', text], tmp_path / 'log', environment)


def test_chains_run_beside_each_other_and_in_order(tmp_path):
    # Each chain waits for the other's file: run one after the other they would hang.
    first = job(tmp_path, f'touch {tmp_path}/a; while [ ! -e {tmp_path}/b ]; do sleep 0.1; done')
    second = job(tmp_path, f'touch {tmp_path}/b; while [ ! -e {tmp_path}/a ]; do sleep 0.1; done')
    third = job(tmp_path, f'test -e {tmp_path}/a && touch {tmp_path}/c')
    wait(Display(io.StringIO()), [first, third], [second])
    assert (tmp_path / 'c').exists()


def test_failed_step_shows_the_end_of_its_log_and_where_it_is(tmp_path):
    failing = job(tmp_path, 'echo first; echo "no space left" >&2; exit 3', title='installing it')
    never = job(tmp_path, f'touch {tmp_path}/never')
    with pytest.raises(SetupError) as caught:
        wait(Display(io.StringIO()), [failing, never])
    message = str(caught.value)
    assert message.startswith('installing it failed (exit status 3)')
    assert str(tmp_path / 'log') in message
    assert message.endswith('no space left')
    assert (tmp_path / 'log').read_text() == 'first\nno space left\n'
    assert not (tmp_path / 'never').exists()


def test_leftovers_of_a_killed_set_up_are_ended_and_nobody_else(tmp_path):
    venv, other = tmp_path / '.venv', tmp_path / 'other'

    def start(mark):
        # A child and a grandchild that outlives its parent, as ninja outlives pip.
        return subprocess.Popen(
            ['sh', '-c', 'sleep 300 & echo $!; wait'],
            env={**os.environ, MARK: str(mark)},
            stdout=subprocess.PIPE,
            text=True,
        )

    ours, theirs = start(venv), start(other)
    grandchild = int(ours.stdout.readline())
    ours.kill()
    ours.wait()
    assert Path(f'/proc/{grandchild}').exists()
    assert end_marked_processes(venv) == 1
    deadline = time.monotonic() + 10
    while Path(f'/proc/{grandchild}').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f'/proc/{grandchild}/exe').exists()
    assert theirs.poll() is None
    assert end_marked_processes(venv) == 0
    end_marked_processes(other)
    theirs.wait()


# The environment --------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path) -> Environment:
    """A copy of what decides about the environment, with an environment of one package."""
    for pattern in INPUTS:
        for file in ROOT.glob(pattern):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    environment = Environment(tmp_path)
    info = environment.folder / 'lib/python3.11/site-packages/torch-2.14.1.dist-info'
    info.mkdir(parents=True)
    (info / 'INSTALLER').write_text('pip\n')
    script(environment.python, '#!/bin/sh\n')
    return environment


def test_finished_set_up_is_current_until_an_input_changes(repository):
    assert not repository.is_current()
    repository.finish(repository.key())
    assert repository.is_current()
    for pattern in INPUTS:
        file = next(iter(sorted(repository.root.glob(pattern))))
        text = file.read_text()
        file.write_text(text + '# changed\n')
        assert not repository.is_current(), pattern
        file.write_text(text)
        assert repository.is_current()


def test_set_up_is_not_current_after_a_move_or_without_a_package(repository, tmp_path):
    repository.finish(repository.key())
    moved = tmp_path.parent / f'{tmp_path.name}-moved'
    shutil.copytree(tmp_path, moved)
    assert not Environment(moved).is_current()
    site = repository.folder / 'lib/python3.11/site-packages'
    (site / 'extra-1.0.dist-info').mkdir()
    assert repository.is_current()
    shutil.rmtree(site / 'torch-2.14.1.dist-info')
    assert not repository.is_current()


def test_input_that_changes_while_the_set_up_runs_is_noticed(repository):
    key = repository.key()
    (repository.root / 'setup.cfg').write_text('[metadata]\n')
    repository.finish(key)
    assert not repository.is_current()


def test_damaged_stamp_means_not_current(repository):
    repository.finish(repository.key())
    stamp = next(repository.folder.glob('setup-stamp*'))
    stamp.write_text(stamp.read_text()[:20])
    assert not repository.is_current()


def test_half_installed_package_is_forgotten(repository):
    site = repository.folder / 'lib/python3.11/site-packages'
    (site / 'half-1.0.dist-info').mkdir()
    (site / 'half-1.0.dist-info' / 'METADATA').write_text('Name: half\n')
    (site / '~alf').mkdir()
    assert repository.drop_half_installed() == ['half-1.0.dist-info']
    assert sorted(path.name for path in site.iterdir()) == ['torch-2.14.1.dist-info']


def test_real_environment_works_until_it_is_moved(tmp_path):
    environment = Environment(tmp_path)
    with environment.locked(Display(io.StringIO())):
        assert not environment.works()
        environment.mmcv_build.mkdir()
        (environment.mmcv_build / 'object.o').touch()
        (environment.folder / 'leftover').touch()
        environment.create()
    assert environment.works()
    assert (environment.mmcv_build / 'object.o').exists()
    assert not (environment.folder / 'leftover').exists()
    moved = tmp_path / 'moved'
    moved.mkdir()
    os.rename(environment.folder, moved / '.venv')
    assert not Environment(moved).works()


def test_second_set_up_waits_for_the_first(tmp_path):
    environment = Environment(tmp_path)
    program = (
        f'import sys; sys.path.insert(0, {str(ROOT / "tools")!r})\n'
        'from pathlib import Path\n'
        'from setup_steps.display import Display\n'
        'from setup_steps.venv import Environment\n'
        f'environment = Environment(Path({str(tmp_path)!r}))\n'
        'with environment.locked(Display()): print("mine", flush=True)\n'
    )
    with environment.locked(Display(io.StringIO())):
        other = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
        assert 'another set-up works' in other.stdout.readline()
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == 'mine\n'


def test_environment_variables_do_not_leak_into_it(tmp_path, monkeypatch):
    for name in ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'VIRTUAL_ENV'):
        monkeypatch.setenv(name, '/elsewhere')
    variables = Environment(tmp_path).variables()
    assert '/elsewhere' not in variables.values()
    assert variables['TMPDIR'].startswith(str(tmp_path / '.venv'))


def test_caches_of_others_do_not_land_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'user'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('PIP_CACHE_DIR', raising=False)
    environment = Environment(tmp_path / 'repository')
    assert environment.variables()['PIP_CACHE_DIR'] == str(tmp_path / 'cache/uniformer_mm/pip')
    # mim makes a folder in the home, YAPF and matplotlib write caches, all of them at import.
    write = (
        'import os, mim.cli; from yapf.yapflib import yapf_api; yapf_api.FormatCode("x=1");'
        'import matplotlib.font_manager; print(os.path.expanduser("~"))'
    )
    if importlib.util.find_spec('mim') is None:
        pytest.skip('openmim is not installed')
    command = [sys.executable, '-c', write]
    done = subprocess.run(
        command, env=environment.doctor_variables(), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == str(environment.folder / 'home'), done.stderr
    assert not (tmp_path / 'user').exists()
    assert not (tmp_path / 'cache').exists()
    monkeypatch.setenv('PIP_CACHE_DIR', '/chosen')
    assert environment.variables()['PIP_CACHE_DIR'] == '/chosen'


def test_versions_come_from_the_lock():
    pip = Pip(Environment(ROOT))
    assert pip.version('mmengine') == '0.10.7'
    assert pip.version('mmcv') == '2.1.0'
    with pytest.raises(LookupError, match='no-such-package'):
        pip.version('no-such-package')


def test_no_wheel_of_the_lock_needs_a_desktop():
    """opencv-python's own cv2 cannot be imported where nothing has brought libGL."""
    lines = (ROOT / 'requirements/lock.txt').read_text(encoding='utf-8').splitlines()
    found = [line.partition('==')[0] for line in lines if line.startswith('opencv')]
    assert found == ['opencv-contrib-python-headless']


def test_packages_of_foreign_tests_leave_the_locked_ones_alone():
    """They go into the same environment, where no second copy of a package may come in."""

    def names(file: str) -> set[str]:
        lines = (ROOT / 'requirements' / file).read_text(encoding='utf-8').splitlines()
        return {line.partition('==')[0] for line in lines if '==' in line and line[0] not in '# '}

    foreign = names('foreign.txt')
    left_out = (ROOT / 'requirements/not-locked.txt').read_text(encoding='utf-8').split()
    assert {'peft', 'onnx', 'onnxruntime', 'captum', 'grad-cam', 'thop'} <= foreign
    assert not foreign & (names('lock.txt') | set(left_out))
