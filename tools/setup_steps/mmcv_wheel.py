# SPDX-License-Identifier: Apache-2.0
"""The mmcv wheel with its compiled operators: built once, then taken from the user's cache.

There is no wheel of mmcv 2.1.0 for current torch, and its setup.py asks for C++17 where torch 2.14
refuses less than C++20. That line is patched in the build folder; nothing else is changed.

Why all 77 files and not those that the toolboxes call: setup.py takes whatever lies in its folders
(``MMCV_WITH_OPS`` is all or nothing), and ``pybind.cpp`` binds every operator by name. What a file
costs is torch's headers, not the operator, so these are compiled once, before all files (measured
with g++ 12: 10.8 s a file without, 2.2 s with; 15 s for the headers).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from setup_steps.cache import user_cache
from setup_steps.display import Display, bar
from setup_steps.preflight import compile_jobs, compiler
from setup_steps.process import Job, SetupError, wait
from setup_steps.venv import Environment

PATCH = 'p1'
"""Raise this with every change of `patch_source` or the compiler flags that changes the wheel."""

PRECOMPILED = 'torch/types.h'
"""What each file of mmcv includes first, and what nearly all of its compile time is spent on."""

FILE_COSTS = {'pybind.cpp': 12.0}
"""Files that cost more than the usual one, in units of that."""

FILE_SECONDS, FILES_BELIEVED = 6.0, 8
"""What a file takes at first, a busy machine's guess, and for how many files it counts."""

FLAGS = ('-g0', '-O2', '-w')
"""Half the time of Python's own flags: no debug information, no warnings."""

HEADER_COMMAND = """\
import subprocess, sys, sysconfig
from torch.utils.cpp_extension import include_paths
compiler, standard, header, *flags = sys.argv[1:]
folders = [*include_paths(), sysconfig.get_path('include')]
command = [*compiler.split(), *flags, '-fPIC', standard, '-x', 'c++-header', header]
command += ['-o', header + '.gch', *('-I' + folder for folder in folders)]
print(*command)
sys.exit(subprocess.call(command))
"""

TORCH_QUESTION = """\
import json, re, subprocess, torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
toolkit = None
if gpu and CUDA_HOME:
    try:
        text = subprocess.check_output([CUDA_HOME + '/bin/nvcc', '--version'], text=True)
        toolkit = re.search(r'release (\\d+\\.\\d+)', text).group(1)
    except OSError:
        pass
gpus = range(torch.cuda.device_count()) if gpu else []
arches = sorted({'%d.%d' % torch.cuda.get_device_capability(i) for i in gpus})
print(json.dumps(dict(torch=torch.__version__, torch_cuda=torch.version.cuda, gpu=gpu,
                      toolkit=toolkit, arches=arches)))
"""


@dataclass(frozen=True)
class Target:
    """Everything that a wheel of mmcv depends on.

    Attributes:
        mmcv: Its version.
        patch: Version of our patch and flags.
        torch: Full version of torch, with its local part.
        device: ``cpu``, or toolkit and architectures of the GPUs, as in ``cuda13.0-sm9.0``.
        python: ABI of Python with the machine, as in ``cpython-311-x86_64-linux-gnu``.
        libc: C library and its version.
    """

    mmcv: str
    patch: str
    torch: str
    device: str
    python: str
    libc: str

    @property
    def key(self) -> str:
        """Name of the folder in the cache."""
        return re.sub(r'[^A-Za-z0-9.+-]', '_', '-'.join(('mmcv', *astuple(self))))


def choose_device(facts: dict) -> tuple[str, str]:
    """Decide between CPU and CUDA operators from what torch says.

    Args:
        facts: Answer to `TORCH_QUESTION`.

    Returns:
        The `Target.device`, and one sentence with the reason.
    """
    if not facts['gpu']:
        return 'cpu', 'CPU operators: torch sees no GPU'
    if facts['toolkit'] is None:
        return 'cpu', 'CPU operators only: there is a GPU but no CUDA toolkit (nvcc)'
    if facts['toolkit'].split('.')[0] != str(facts['torch_cuda']).split('.')[0]:
        return 'cpu', (
            f'CPU operators only: the CUDA toolkit is {facts["toolkit"]}, '
            f'torch was made with {facts["torch_cuda"]}'
        )
    arches = '+'.join(facts['arches'])
    return f'cuda{facts["toolkit"]}-sm{arches}', f'CPU and CUDA operators for {arches}'


def ask_torch(environment: Environment) -> dict:
    """What the installed torch says about itself and the GPUs."""
    done = subprocess.run(
        [str(environment.python), '-W', 'ignore', '-c', TORCH_QUESTION],
        capture_output=True,
        text=True,
        env=environment.variables(),
    )
    if done.returncode != 0:
        raise SetupError(f'the installed torch cannot be imported:\n{done.stderr.strip()}')
    return json.loads(done.stdout.splitlines()[-1])


def cache_folder() -> Path:
    """``uniformer_mm/wheels`` in the user's cache."""
    return user_cache() / 'wheels'


def cached_wheel(cache: Path, key: str) -> Path | None:
    """The wheel for `key` if it is in the cache and whole."""
    for wheel in sorted((cache / key).glob('mmcv-*.whl')):
        if is_whole(wheel):
            return wheel
    return None


def is_whole(wheel: Path) -> bool:
    """Whether `wheel` is an undamaged archive with mmcv's compiled operators in it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            return archive.testzip() is None and any(
                re.fullmatch(r'mmcv/_ext\..*\.so', name) for name in names
            )
    except (OSError, zipfile.BadZipFile):
        return False


def may_be_cached(cache: Path, mmcv: str, torch: str) -> bool:
    """Whether some wheel for this Python and torch is cached, before torch can be asked."""
    pattern = f'mmcv-{mmcv}-{PATCH}-{torch}*{sysconfig.get_config_var("SOABI")}*'
    return any(cache.glob(f'{pattern}/mmcv-*.whl'))


def store(wheel: Path, cache: Path, key: str) -> Path:
    """Move `wheel` into the cache, where it appears whole or not at all; return its new place.

    Where the cache cannot be written, the wheel stays where it is.
    """
    target = cache / key / wheel.name
    temporary = target.with_name(f'.{os.getpid()}-{wheel.name}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel, temporary)
        os.replace(temporary, target)
    except OSError:
        return wheel
    return target


def patch_source(source: Path, torch: str) -> None:
    """Make mmcv's setup.py ask for the C++ standard that `torch` demands; safe to repeat."""
    major, minor = (int(part) for part in torch.split('.')[:2])
    if (major, minor) < (2, 14):
        return
    setup = source / 'setup.py'
    setup.write_text(setup.read_text(encoding='utf-8').replace('-std=c++17', '-std=c++20'))


class Build:
    """Builds the wheel for one target in a folder that survives an interruption.

    ninja keeps the finished object files, so a second start goes on where the first was stopped.
    """

    def __init__(self, environment: Environment, target: Target):
        self._environment = environment
        self._target = target
        self._folder = environment.mmcv_build / target.key
        self._source = self._folder / f'mmcv-{target.mmcv}'
        self._out = self._folder / 'wheel'
        self._header = self._folder / 'all.h'
        self._progress = Progress()

    def prepare(self, display: Display) -> None:
        """Fetch, unpack and patch the source, unless that has been done."""
        for other in self._environment.mmcv_build.glob('*'):
            if other != self._folder:
                shutil.rmtree(other)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._source.exists():
            return
        # pip asks setup.py for the version of what it fetched, hence --no-build-isolation.
        arguments = ('--no-deps', '--no-build-isolation', '--no-binary', 'mmcv')
        fetch = self._pip('download', 'fetching mmcv', *arguments, '-d', str(self._folder))
        wait(display, [lambda: fetch(f'mmcv=={self._target.mmcv}')])
        unpacked = self._folder / 'unpacked'
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(next(self._folder.glob('mmcv-*.tar.gz'))) as archive:
            if hasattr(tarfile, 'data_filter'):
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(unpacked)
        patch_source(unpacked / self._source.name, self._target.torch)
        os.replace(unpacked / self._source.name, self._source)

    def steps(self) -> list[Callable[[], Job]]:
        """The jobs that compile and pack the wheel, in order."""
        self._header.unlink(missing_ok=True)
        return [*([self.precompile()] if is_gcc(compiler()) else []), self.compile()]

    def precompile(self) -> Callable[[], Job]:
        """The job that compiles torch's headers.

        GCC takes them only where the flags agree, and reads the headers themselves otherwise.
        """
        self._header.write_text(f'#include <{PRECOMPILED}>\n', encoding='utf-8')
        setup = (self._source / 'setup.py').read_text(encoding='utf-8')
        standard = '-std=c++20' if '-std=c++20' in setup else '-std=c++17'
        arguments = [compiler(), standard, str(self._header), *FLAGS]
        return lambda: Job(
            'compiling the headers of torch, about 20 s',
            [str(self._environment.python), '-c', HEADER_COMMAND, *arguments],
            self._environment.logs / 'mmcv-headers.log',
            self.variables(),
        )

    def compile(self) -> Callable[[], Job]:
        """The job that compiles and packs the wheel."""
        shutil.rmtree(self._out, ignore_errors=True)
        jobs = self._jobs()
        title = f'compiling mmcv with {jobs} job{"s" * (jobs > 1)}'
        build = self._pip(
            'wheel', title, '--no-deps', '--no-build-isolation', '-v', '-w', str(self._out)
        )
        return lambda: build(str(self._source))

    def wheel(self) -> Path:
        """The finished wheel."""
        wheels = list(self._out.glob('mmcv-*.whl'))
        if len(wheels) != 1 or not is_whole(wheels[0]):
            raise SetupError(
                f'the build of mmcv left no wheel with compiled operators in {self._out}; '
                f'see {self._environment.logs / "mmcv-wheel.log"}'
            )
        return wheels[0]

    def clean(self) -> None:
        """Remove sources and object files."""
        shutil.rmtree(self._environment.mmcv_build, ignore_errors=True)

    def variables(self) -> dict[str, str]:
        """Environment variables for the compilers."""
        cuda = self._target.device.startswith('cuda')
        variables = {
            **self._environment.variables(),
            'MAX_JOBS': str(self._jobs()),
            'CFLAGS': ' '.join(self._flags()),
            # The compiler that was checked, whatever compiler built this Python.
            'CXX': compiler(),
            'LDSHARED': f'{compiler()} -shared',
            'LDCXXSHARED': f'{compiler()} -shared',
            'MMCV_WITH_OPS': '1',
        }
        if cuda:
            arches = self._target.device.split('-sm')[1]
            variables.update(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=arches.replace('+', ';'))
        else:
            # Hides GPUs, for mmcv's setup.py would otherwise insist on CUDA operators.
            variables.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
        return variables

    def _flags(self) -> list[str]:
        # GCC looks for the compiled form beside the header.
        headers = ['-include', str(self._header)] if self._header.exists() else []
        return [*FLAGS, *headers]

    def _jobs(self) -> int:
        """Compilers beside each other; nvcc needs twice the memory."""
        if 'MAX_JOBS' in os.environ:
            return int(os.environ['MAX_JOBS'])
        cuda = self._target.device.startswith('cuda')
        return compile_jobs(per_job_gib=3 if cuda else 1.5)

    def _pip(self, command: str, title: str, *arguments: str) -> Callable[[str], Job]:
        def job(requirement: str) -> Job:
            return Job(
                title,
                [str(self._environment.python), '-m', 'pip', command, *arguments, requirement],
                self._environment.logs / f'mmcv-{command}.log',
                self.variables(),
                lambda line: self._status(title, line),
            )

        return job

    def _status(self, title: str, line: str) -> str | None:
        """Progress from ninja's counter ``[done/total]``."""
        found = re.match(r'\s*\[(\d+)/(\d+)\]', line)
        if found is None:
            return None
        done, total = (int(number) for number in found.groups())
        costs = [cost for name, cost in FILE_COSTS.items() if f'/{name}' in line]
        left_s = self._progress.left_s(done, total, self._jobs(), costs[0] if costs else 1.0)
        return f'{title} {bar(done, total, left_s)}'


class Progress:
    """An estimate of what is left of a compilation, which never grows.

    It begins with `FILE_SECONDS` and goes over to what was measured; where files take longer than
    that it stands still, as a clock of that kind must.
    """

    def __init__(self) -> None:
        self._begin: float | None = None
        self._cost = 0.0
        self._extra = sum(FILE_COSTS.values()) - len(FILE_COSTS)
        self._least = float('inf')

    def left_s(self, done: int, total: int, jobs: int, cost: float) -> float:
        """Seconds left.

        Args:
            done: Files that are finished, this one included.
            total: All files.
            jobs: Compilers beside each other.
            cost: Of this file, in units of a usual one.

        Returns:
            At most what was returned before.
        """
        now = time.monotonic()
        if self._begin is None:
            # An interrupted build goes on: what it had done costs nothing now.
            self._begin = now
        else:
            self._cost += cost
        self._extra = self._extra - (cost - 1) if done < total else 0.0
        believed = FILES_BELIEVED * FILE_SECONDS / jobs
        seconds_each = (believed + now - self._begin) / (FILES_BELIEVED + self._cost)
        self._least = min(self._least, seconds_each * (total - done + self._extra))
        return self._least


def is_gcc(command: str) -> bool:
    """Whether a C++ compiler is GCC; others keep compiled headers in other ways."""
    question = [*command.split(), '-dM', '-E', '-x', 'c++', os.devnull]
    macros = subprocess.run(question, capture_output=True, text=True, check=False).stdout
    return '__GNUC__' in macros and '__clang__' not in macros


def is_installed(environment: Environment, target: Target) -> bool:
    """Whether the build for `target` is what `environment` holds."""
    return (
        environment.read_stamp().get('mmcv') == target.key
        and f'mmcv-{target.mmcv}.dist-info' in environment.installed()
    )


def target_of(environment: Environment, mmcv: str) -> tuple[Target, str]:
    """The target for `environment`, and why its device was chosen."""
    facts = ask_torch(environment)
    device, reason = choose_device(facts)
    libc = '-'.join(platform.libc_ver())
    python = sysconfig.get_config_var('SOABI')
    return Target(mmcv, PATCH, facts['torch'], device, python, libc), reason
