# SPDX-License-Identifier: Apache-2.0
"""The virtual environment ``.venv``: creation, stamp, lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setup_steps.cache import user_cache
from setup_steps.display import Display
from setup_steps.process import MARK, SetupError

INPUTS = (
    'requirements/lock.txt',
    'requirements/from-source.txt',
    'setup.cfg',
    'pyproject.toml',
    'tools/setup_env.py',
    'tools/setup_steps/*.py',
    'uniformer_mm/cli.py',
    'uniformer_mm/env/**/*.py',
)
"""The files that decide what the environment holds; a change in one runs the set-up again."""

DROPPED_VARIABLES = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'PIP_TARGET', 'PIP_PREFIX')
"""Variables that would make pip or Python look beyond the environment."""


class Environment:
    """The environment of the repository at `root`.

    Everything that the set-up writes while it works (logs, temporary files, mmcv's objects) lies
    in ``.venv`` too.
    """

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / '.venv'
        self.python = self.folder / 'bin' / 'python'
        self.logs = self.folder / 'setup-logs'
        self.temporary = self.folder / 'tmp'
        self.mmcv_build = self.folder / 'mmcv-build'
        self._stamp = self.folder / 'setup-stamp.json'

    def key(self) -> str:
        """Hash of all that decides what the environment holds, and where it lies.

        The place counts because the scripts in ``bin`` name their interpreter by its full path.
        """
        digest = hashlib.sha256(f'{self.folder}\n{sys.version}\n'.encode())
        for pattern in INPUTS:
            for file in sorted(self.root.glob(pattern)):
                name = file.relative_to(self.root).as_posix()
                digest.update(f'{name}\n'.encode() + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def is_current(self) -> bool:
        """Whether a set-up with this key has finished here and its packages are still there."""
        stamp = self.read_stamp()
        return (
            self.python.exists()
            and stamp.get('key') == self.key()
            and self.installed().issuperset(stamp['packages'])
        )

    def installed(self) -> set[str]:
        """``NAME-VERSION.dist-info`` of everything installed."""
        sites = (self.folder / 'lib').glob('python3*/site-packages')
        return {info.name for site in sites for info in site.glob('*.dist-info')}

    def finish(self, key: str) -> None:
        """Note that the set-up with this key, taken when it began, is complete."""
        self.write_stamp(key=key, packages=sorted(self.installed()))

    def read_stamp(self) -> dict:
        """What the last finished set-up wrote; empty if there was none."""
        try:
            return json.loads(self._stamp.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}

    def write_stamp(self, **values: str | list[str]) -> None:
        """Note `values` in the stamp, whole or not at all."""
        temporary = self._stamp.with_suffix('.tmp')
        temporary.write_text(json.dumps({**self.read_stamp(), **values}), encoding='utf-8')
        os.replace(temporary, self._stamp)

    def variables(self) -> dict[str, str]:
        """Environment variables for the commands that work on it."""
        kept = {name: text for name, text in os.environ.items() if name not in DROPPED_VARIABLES}
        return {
            **kept,
            MARK: str(self.folder),
            'TMPDIR': str(self.temporary),
            # What pip downloads may serve the next environment; a folder the user names stays.
            'PIP_CACHE_DIR': os.environ.get('PIP_CACHE_DIR', str(user_cache() / 'pip')),
            'PATH': f'{self.python.parent}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
            'PYTHONNOUSERSITE': '1',
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            'PIP_NO_INPUT': '1',
        }

    def doctor_variables(self) -> dict[str, str]:
        """Variables for the doctor: the packages that it imports write caches.

        matplotlib, YAPF and mim (an empty folder) do so in the user's home; from here they do so in
        the environment.
        """
        home = self.folder / 'home'
        return self.variables() | {
            'HOME': str(home),
            'XDG_CACHE_HOME': str(home / '.cache'),
            'MPLCONFIGDIR': str(home / 'matplotlib'),
        }

    @contextmanager
    def locked(self, display: Display) -> Iterator[None]:
        """Hold the environment alone; a second set-up waits for the first."""
        self.folder.mkdir(exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                display.phase(f'another set-up works on {self.folder}, waiting for it')
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def works(self) -> bool:
        """Whether an environment of the running Python is here whose Python and pip run."""
        try:
            script = (self.folder / 'bin' / 'activate').read_text(encoding='utf-8')
        except OSError:
            return False
        # After a move the scripts in bin call an interpreter that is no longer there.
        if str(self.folder) not in script:
            return False
        question = 'import pip._internal.cli.main, sys; print(*sys.version_info[:2], sys.prefix)'
        command = [str(self.python), '-I', '-c', question]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired):
            return False
        major, minor = sys.version_info[:2]
        return done.stdout.strip() == f'{major} {minor} {self.folder}'

    def create(self) -> None:
        """Make an empty environment of the running Python in place of what is there.

        Raises:
            SetupError: the environment cannot be made.
        """
        for entry in self.folder.iterdir():
            if entry == self.mmcv_build:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        command = [sys.executable, '-I', '-m', 'venv', str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f'{" ".join(command)} failed: {done.stdout}{done.stderr}'.strip())

    def prepare_folders(self) -> None:
        """Make the folders for logs and temporary files, empty."""
        for folder in (self.logs, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def drop_half_installed(self) -> list[str]:
        """Forget packages whose installation was interrupted; return their names.

        pip writes INSTALLER when all files of a package are in place. Without it a package looks
        installed and is not, so pip must not find it.
        """
        dropped = []
        for site in (self.folder / 'lib').glob('python3*/site-packages'):
            for info in site.glob('*.dist-info'):
                if not (info / 'INSTALLER').exists():
                    shutil.rmtree(info)
                    dropped.append(info.name)
            for stash in site.glob('~*'):
                # What pip sets aside while it replaces a package.
                shutil.rmtree(stash, ignore_errors=True)
        return dropped
