# SPDX-License-Identifier: Apache-2.0
"""What a person sees: phases with elapsed seconds, and one line that shows progress."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

QUIET_SECONDS = 15
"""Where output is no terminal (CI logs), progress is a new line this often."""


class Display:
    """Prints phases, and below them a status that a terminal rewrites in place."""

    def __init__(self, stream: TextIO | None = None, clock=time.monotonic):
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._start = clock()
        self._last_status = self._start
        self._terminal = self._stream.isatty()

    def phase(self, text: str) -> None:
        """Announce what begins now."""
        self._write(f'[{self._clock() - self._start:4.0f} s] {text}\n')
        self._last_status = self._clock()

    def status(self, text: str) -> None:
        """Show how far the phase is."""
        now = self._clock()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f'[{now - self._start:4.0f} s] {text}'[:width], end='')
        elif now - self._last_status >= QUIET_SECONDS:
            self._write(f'[{now - self._start:4.0f} s]   {text}\n')
            self._last_status = now

    def _write(self, text: str, end: str = '') -> None:
        # The escape sequence clears what the last status left on the line.
        self._stream.write(('\r\x1b[K' if self._terminal else '') + text + end)
        self._stream.flush()


def bar(done: int, total: int, left_s: float | None = None, width: int = 24) -> str:
    """A progress bar with percentage and, where it is known, the time left.

    >>> bar(1, 4, 30.2, width=8)
    '[##......]  25 % (1/4), about 30 s left'
    """
    filled = width * done // total
    text = f'[{"#" * filled}{"." * (width - filled)}] {100 * done // total:3} % ({done}/{total})'
    return text if left_s is None else f'{text}, about {left_s:.0f} s left'
