# SPDX-License-Identifier: Apache-2.0
"""What must be there before the set-up starts, and what to install where it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

GIB = 2**30

TEST_PROGRAM = """\
#include <concepts>
#include <span>
#include <vector>
template <std::integral T> T sum(std::span<const T> values) {
  T total = 0;
  for (T value : values) total += value;
  return total;
}
int main() {
  std::vector<int> values{1, 2, 3};
  return sum(std::span<const int>(values)) - 6;
}
"""


def compiler() -> str:
    """The C++ compiler that torch's extension builder will use."""
    return os.environ.get('CXX', 'c++')


def check_compiler(scratch: Path) -> str | None:
    """A C++20 compiler with its standard library, shown by compiling and running a program."""
    advice = 'install one, for example: apt-get install g++'
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source, program = Path(folder, 'test.cpp'), Path(folder, 'test')
        source.write_text(TEST_PROGRAM)
        command = [*compiler().split(), '-std=c++20', str(source), '-o', str(program)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors='replace')
        except OSError:
            return f'mmcv has to be compiled and there is no C++ compiler ({compiler()}); {advice}'
        if done.returncode == 0:
            done = subprocess.run([str(program)], capture_output=True, text=True)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            reason = lines[0] if lines else f'exit status {done.returncode}'
            return (
                f'the C++ compiler {compiler()} cannot compile a C++20 program ({reason}); g++ 11 '
                f'or newer can, {advice}'
            )
    return None


def check_headers(include: Path | None = None) -> str | None:
    """The headers of this Python, which compiled extensions include."""
    include = Path(sysconfig.get_path('include')) if include is None else include
    if (include / 'Python.h').is_file():
        return None
    release = sysconfig.get_python_version()
    return (
        f'mmcv has to be compiled and the headers of Python {release} are missing ({include}); '
        f'install them, for example: apt-get install python{release}-dev'
    )


def check_venv(modules: tuple[str, ...] = ('venv', 'ensurepip')) -> str | None:
    """The standard modules that make virtual environments; Debian packages them apart."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    release = sysconfig.get_python_version()
    return (
        f'this Python {release} cannot make virtual environments (no module {missing[0]}); '
        f'install it, for example: apt-get install python{release}-venv'
    )


def check_disk(folder: Path, needed_gib: float) -> str | None:
    """Free space where the environment will be."""
    free_gib = shutil.disk_usage(folder).free / GIB
    if free_gib >= needed_gib:
        return None
    return (
        f'the environment needs {needed_gib:.0f} GiB more in {folder} and {free_gib:.1f} GiB are '
        'free; make room, or clone the repository to another disk'
    )


def compile_jobs(
    cores: int | None = None, memory_gib: float | None = None, per_job_gib: float = 1.5
) -> int:
    """How many compilers to run beside each other: one per core, as far as memory goes.

    A file of mmcv takes 0.8 GiB (measured with g++ 12); 1 GiB is left to the rest.
    """
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    memory_gib = available_memory_gib() if memory_gib is None else memory_gib
    return max(1, min(cores, int((memory_gib - 1) / per_job_gib)))


def available_memory_gib(root: Path = Path('/')) -> float:
    """Memory that can be had now: the machine's, or less where a control group limits it."""
    meminfo = (root / 'proc/meminfo').read_text()
    line = next(line for line in meminfo.splitlines() if line.startswith('MemAvailable:'))
    available = int(line.split()[1]) * 1024
    for limit, used in (
        ('sys/fs/cgroup/memory.max', 'sys/fs/cgroup/memory.current'),
        (
            'sys/fs/cgroup/memory/memory.limit_in_bytes',
            'sys/fs/cgroup/memory/memory.usage_in_bytes',
        ),
    ):
        try:
            limited = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):
            # No such control group, or its limit is "max".
            continue
        available = min(available, limited)
    return available / GIB
