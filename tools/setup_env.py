# SPDX-License-Identifier: Apache-2.0
"""Make the environment of this repository in ``.venv``: ``python3 tools/setup_env.py``.

``make demo``, ``make test`` and ``make setup`` call this first. It needs nothing but the standard
library, does only what is missing, and may be interrupted at any point.

This file finds a Python that fits and hands over to it, so it keeps to syntax that older releases
read as well; ``setup_steps`` does the work.
"""

import glob
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUPPORTED = ((3, 11), (3, 12), (3, 10))  # in order of preference


def find_python(environment, search_path=None):
    """Find an interpreter of a supported release by running the candidates.

    Args:
        environment: Folder of the virtual environment; if it has a working Python of a supported
            release, that one decides.
        search_path: Folders to search, ``PATH`` by default.

    Returns:
        Path of the interpreter that environments are made from, or None.
    """
    found = {}
    for candidate in _candidates(environment, search_path):
        release, executable = _ask(candidate)
        if release not in SUPPORTED:
            continue
        if candidate.startswith(environment):
            return executable
        found.setdefault(release, executable)
    for release in SUPPORTED:
        if release in found:
            return found[release]
    return None


def _candidates(environment, search_path):
    yield os.path.join(environment, 'bin', 'python')
    names = ['python{}.{}'.format(*release) for release in SUPPORTED] + ['python3', 'python']
    folders = (search_path or os.environ.get('PATH', os.defpath)).split(os.pathsep)
    for name in names:
        for folder in folders:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                yield path
    # pyenv's shims refuse a release that is installed but not selected; it works nevertheless.
    pyenv = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    for release in SUPPORTED:
        pattern = os.path.join(pyenv, 'versions', '{}.{}.*'.format(*release), 'bin', 'python')
        for path in sorted(glob.glob(pattern), reverse=True):
            yield path


def _ask(candidate):
    """Release and base interpreter of `candidate`, (None, None) if it does not run."""
    question = (
        "import sys; b = getattr(sys, '_base_executable', None) or sys.executable; "
        'print(sys.version_info[0], sys.version_info[1], b)'
    )
    try:
        answer = subprocess.check_output(
            [candidate, '-I', '-c', question], stderr=subprocess.DEVNULL, timeout=60
        ).decode()
        major, minor, executable = answer.strip().split(' ', 2)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
    return (int(major), int(minor)), executable


def main():
    """Hand over to a supported Python; return the exit status if there is none."""
    python = find_python(os.path.join(ROOT, '.venv'))
    if python is None:
        sys.stderr.write(
            "set-up: no Python 3.10, 3.11 or 3.12 on this machine's PATH; install one, for example"
            ' apt-get install python3.11 python3.11-dev python3.11-venv\n'
        )
        return 2
    steps = os.path.join(ROOT, 'tools', 'setup_steps')
    sys.stdout.flush()
    os.execv(python, [python, '-I', steps] + sys.argv[1:])  # noqa: RUF005


if __name__ == '__main__':
    sys.exit(main())
