# SPDX-License-Identifier: Apache-2.0
"""Commands in the background, their logs, and what a killed set-up left running."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from setup_steps.display import Display

MARK = 'UNIFORMER_MM_SETUP'
"""Environment variable that all our child processes carry; its value names the environment."""


class SetupError(Exception):
    """Something a person has to put right; the message says what and how."""


class Job:
    """One command that runs in the background.

    Args:
        title: What it does, for the status line.
        command: Program and arguments.
        log: File that gets the whole output (appended).
        env: Environment variables of the command.
        on_line: Gets each line of output; returns the text for the status line, or None.
    """

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        log: Path,
        env: dict[str, str],
        on_line: Callable[[str], str | None] | None = None,
    ):
        self.title = title
        self.status = title
        self._log = log
        self._on_line = on_line
        self._tail: list[str] = []
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env=env,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def running(self) -> bool:
        """Whether the command still runs.

        Raises:
            SetupError: it failed; the message ends with its last lines.
        """
        status = self._process.poll()
        if status is None:
            return True
        self._reader.join()
        if status != 0:
            tail = '\n'.join(f'    {line}' for line in self._tail[-15:])
            raise SetupError(
                f'{self.title} failed (exit status {status}); run the same command again once the '
                f'cause is gone, finished steps are kept. All output is in {self._log}, '
                f'which ends with:\n{tail}'
            )
        return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open('a', encoding='utf-8') as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                self._tail = [*self._tail[-30:], line.rstrip()]
                if self._on_line is not None:
                    self.status = self._on_line(line) or self.status


def wait(display: Display, *chains: Sequence[Callable[[], Job]]) -> None:
    """Run chains of jobs beside each other, each chain in order, until all are done.

    Raises:
        SetupError: a job failed; the others have been ended.
    """
    pending = [list(chain) for chain in chains]
    current = [chain.pop(0)() for chain in pending]
    while current:
        for place, job in reversed(list(enumerate(current))):
            if job.running():
                continue
            if pending[place]:
                current[place] = pending[place].pop(0)()
            else:
                del current[place], pending[place]
        if current:
            display.status('; '.join(job.status for job in current))
            time.sleep(0.2)


def end_marked_processes(venv: Path) -> int:
    """End all processes that a set-up of `venv` has started; return how many there were.

    A set-up that was killed leaves its children (pip, ninja, compilers) at work on files that the
    next one is about to use. They are known by the variable `MARK` in their environment.
    """
    entry = f'{MARK}={venv}'.encode()
    ended = set()
    for attempt in range(50):
        found = [process for process in _processes_with(entry) if process != os.getpid()]
        if not found:
            break
        for process in found:
            ended.add(process)
            try:
                os.kill(process, signal.SIGTERM if attempt < 25 else signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
    return len(ended)


def _processes_with(entry: bytes) -> list[int]:
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if entry in (folder / 'environ').read_bytes().split(b'\0'):
                found.append(int(folder.name))
        except OSError:
            # Ended meanwhile, or another user's.
            continue
    return found
