# SPDX-License-Identifier: Apache-2.0
"""What pip installs, in an order that lets mmcv compile while the rest is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from setup_steps.process import Job
from setup_steps.venv import Environment

BUILD_PACKAGES = (
    'torch',
    'numpy',
    'setuptools',
    'wheel',
    'ninja',
    'packaging',
    # mmcv's setup.py imports cv2.
    'opencv-contrib-python-headless',
)
"""What must be complete before mmcv is compiled; pip brings what they need."""

FROM_SOURCE = ('chumpy', 'xtcocotools')
"""Built in the environment from what the lock has installed; xtcocotools on Python 3.12 only."""


class Pip:
    """Makes the jobs that install into one environment."""

    def __init__(self, environment: Environment):
        self._environment = environment
        self._requirements = environment.root / 'requirements'

    def version(self, name: str) -> str:
        """Version of `name` in the lock (of its first line, where they differ by Python)."""
        for file in ('lock.txt', 'from-source.txt'):
            text = (self._requirements / file).read_text(encoding='utf-8')
            found = re.search(rf'^{re.escape(name)}==([^\s;]+)', text, re.MULTILINE)
            if found is not None:
                return found.group(1)
        raise LookupError(f'{name} is in neither lock.txt nor from-source.txt')

    def itself(self) -> Callable[[], Job]:
        """The pip of the lock."""
        return self._install('pip', 'updating pip', *self._locked('pip'))

    def build_packages(self) -> Callable[[], Job]:
        """PyTorch and all else that building mmcv needs."""
        title = f'installing PyTorch {self.version("torch")} (2.5 GiB to fetch unless cached)'
        return self._install('torch', title, *self._locked(*BUILD_PACKAGES))

    def lock(self) -> Callable[[], Job]:
        """The rest of the lock, without asking for what is not in it."""
        lock = str(self._requirements / 'lock.txt')
        return self._install('lock', 'installing the toolboxes', '--no-deps', '-r', lock)

    def from_source(self) -> Callable[[], Job]:
        """What else has no wheel, mmcv aside; their setup.py imports what the lock installs."""
        names = [f'{name}=={self.version(name)}' for name in FROM_SOURCE]
        title = f'installing {" and ".join(FROM_SOURCE)}'
        return self._install('from-source', title, '--no-deps', '--no-build-isolation', *names)

    def wheel(self, file: Path) -> Callable[[], Job]:
        """A wheel file, even where another build of the same version is installed."""
        title = f'installing {file.name}'
        return self._install('mmcv', title, '--no-deps', '--force-reinstall', str(file))

    def this_package(self) -> Callable[[], Job]:
        """The repository's own package, editable, with its console command."""
        return self._install(
            'uniformer_mm',
            'installing uniformer_mm (editable)',
            '--no-deps',
            '--no-build-isolation',
            '--editable',
            str(self._environment.root),
        )

    def _locked(self, *names: str) -> tuple[str, ...]:
        return ('--constraint', str(self._requirements / 'lock.txt'), *names)

    def _install(self, log: str, title: str, *arguments: str) -> Callable[[], Job]:
        environment = self._environment
        # Python compiles what is imported when it is; all byte code at once costs a minute.
        options = ('--no-compile', '--progress-bar=off')
        command = [str(environment.python), '-m', 'pip', 'install', *options]
        return partial(
            Job,
            title,
            [*command, *arguments],
            environment.logs / f'{log}.log',
            environment.variables(),
            partial(_pip_status, title),
        )


def _pip_status(title: str, line: str) -> str | None:
    """Status line for a line of pip's output, None where it says nothing new."""
    found = re.match(r'\s*(Downloading|Building wheel for|Installing collected) ([^\s;]+)', line)
    if found is None:
        return None
    if found.group(1).startswith('Installing'):
        return f'{title}: unpacking'
    return f'{title}: {found.group(2).rsplit("/", 1)[-1]}'
