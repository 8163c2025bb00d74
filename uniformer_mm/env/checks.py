# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks at: one check per row, one result per check."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib import metadata
from pathlib import Path

from uniformer_mm.env import probes
from uniformer_mm.env.patching import State
from uniformer_mm.env.repair import Repair
from uniformer_mm.env.repairs import REPAIRS
from uniformer_mm.env.versions import (
    PYTHON_RANGE,
    REQUIREMENTS,
    Requirement,
    in_range,
    installed_version,
)

PROBE_SECONDS = 600
"""A probe that takes longer hangs; the slowest takes 25 s on one busy core."""


class Status(Enum):
    """How a result counts: only TROUBLE makes the doctor fail."""

    OK = 'ok'
    ABSENT = 'absent'
    TROUBLE = 'trouble'


@dataclass(frozen=True)
class CheckResult:
    """Result of one check: what was looked at, how it is, and the command that helps."""

    name: str
    status: Status
    detail: str
    fix: str = ''


class ProbeRunner:
    """Runs each probe at most once, two at a time, each in its own process."""

    def __init__(self, python: str = sys.executable):
        self._python = python
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._results: dict[str, Future[str | None]] = {}

    def start(self, name: str) -> None:
        """Begin the probe `name` unless it has begun."""
        if name not in self._results:
            self._results[name] = self._pool.submit(self._run, name)

    def error(self, name: str) -> str | None:
        """None where the probe succeeds, else what it died of, in one line."""
        self.start(name)
        return self._results[name].result()

    def close(self) -> None:
        """Wait for what runs and drop what has not begun."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, name: str) -> str | None:
        command = [self._python, '-W', 'ignore', str(Path(probes.__file__)), name]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=PROBE_SECONDS,
                env={**os.environ, 'TQDM_DISABLE': '1'},
            )
        except subprocess.TimeoutExpired:
            return f'no answer within {PROBE_SECONDS} s'
        if done.returncode == 0:
            return None
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if done.returncode < 0:
            return f'the process died of signal {-done.returncode}'
        return lines[-1] if lines else f'exit status {done.returncode}'


@dataclass(frozen=True)
class Check:
    """One row of the doctor's table.

    Attributes:
        name: what is looked at.
        run: makes the result.
        probe: the probe that `run` will ask for, so that it can start ahead of its turn.
    """

    name: str
    run: Callable[[ProbeRunner], CheckResult]
    probe: str | None = None


def run_checks(checks: 'list[Check]', runner: ProbeRunner) -> Iterator[CheckResult]:
    """Make the results in the order of the table; probes run ahead in the background."""
    for check in checks:
        if check.probe is not None:
            runner.start(check.probe)
    for check in checks:
        yield check.run(runner)


def all_checks() -> list[Check]:
    """The table for this environment; probes only of what is installed."""
    checks = [Check('python', _check_python)]
    checks += [Check(row.name, partial(check_version, row)) for row in REQUIREMENTS]
    checks += [
        Check(name, partial(check_probe, name, what, fix), probe=name)
        for name, distribution, what, fix in _probe_rows()
        if _is_installed(distribution)
    ]
    checks += [
        Check(repair.name, partial(check_repair, repair), probe=_probe_of(repair))
        for repair in REPAIRS
    ]
    return checks


def _check_python(_: ProbeRunner) -> CheckResult:
    version = '.'.join(str(part) for part in sys.version_info[:3])
    if in_range(version, PYTHON_RANGE):
        return CheckResult('python', Status.OK, version)
    return CheckResult(
        'python',
        Status.TROUBLE,
        f'{version} is outside {PYTHON_RANGE}',
        'make an environment with Python 3.10, 3.11 or 3.12',
    )


def check_version(requirement: Requirement, _: ProbeRunner) -> CheckResult:
    """Compare the installed version with the supported range."""
    version = installed_version(requirement)
    if version is None:
        if requirement.required:
            return CheckResult(
                requirement.name, Status.TROUBLE, 'is not installed', requirement.command
            )
        return CheckResult(
            requirement.name,
            Status.ABSENT,
            f'not installed (optional: {requirement.reason})',
            requirement.command,
        )
    if in_range(version, requirement.range):
        return CheckResult(requirement.name, Status.OK, version)
    return CheckResult(
        requirement.name,
        Status.TROUBLE,
        f'{version} is outside {requirement.range} ({requirement.reason})',
        requirement.command,
    )


def check_probe(name: str, what: str, fix: str, runner: ProbeRunner) -> CheckResult:
    """Report the outcome of one probe; `what` says what its success means."""
    error = runner.error(name)
    if error is None:
        return CheckResult(name, Status.OK, what)
    return CheckResult(name, Status.TROUBLE, error, fix)


def check_repair(repair: Repair, runner: ProbeRunner) -> CheckResult:
    """Report whether the defect that `repair` cures is present, and prove the cure."""
    version = repair.version()
    if version is None:
        return CheckResult(
            repair.name, Status.ABSENT, f'{repair.package} is not installed (optional)'
        )
    state = repair.state_in(version)
    if state is State.RELEASED:
        if not repair.needed():
            return CheckResult(
                repair.name, Status.OK, 'the defect cannot strike here, not repaired'
            )
        return CheckResult(repair.name, Status.TROUBLE, repair.defect, 'uniformer-mm doctor --fix')
    error = runner.error(repair.probe)
    if error is None:
        how = 'repaired' if state is State.REPAIRED else f'works in {repair.package} {version}'
        return CheckResult(repair.name, Status.OK, how)
    release = f'{repair.package}=={repair.releases[-1]}'
    return CheckResult(
        repair.name,
        Status.TROUBLE,
        f'{error} ({repair.package} {version}, {state.value})',
        f'pip install --force-reinstall --no-deps {release} && uniformer-mm doctor --fix',
    )


def _probe_rows() -> Iterator[tuple[str, str, str, str]]:
    """Probe name, distribution it is about, what success means, what helps."""
    commands = {row.name: row.command for row in REQUIREMENTS}
    yield 'torchvision-ops', 'torchvision', 'runs with this torch', commands['torchvision']
    yield 'mmcv-ops', 'mmcv', 'compiled operators run', commands['mmcv']
    if _gpu_is_visible():
        yield 'mmcv-cuda-ops', 'mmcv', 'compiled operators run on the GPU', commands['mmcv']
    yield 'mim', 'openmim', 'the command mim starts', commands['openmim']
    for module, distribution in probes.TOOLBOXES.items():
        yield (
            f'import-{module}',
            distribution,
            f'{module}.apis and {module}.models can be imported',
            'uniformer-mm doctor --fix, else '
            f'pip install --force-reinstall --no-deps {distribution}',
        )


def _probe_of(repair: Repair) -> str | None:
    """The probe that `check_repair` will want, None where it will not."""
    version = repair.version()
    if version is None or repair.state_in(version) is State.RELEASED:
        return None
    return repair.probe


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gpu_is_visible() -> bool:
    import torch

    return torch.cuda.is_available()
