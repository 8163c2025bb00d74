# SPDX-License-Identifier: Apache-2.0
"""What the commands print with: consoles, errors, tables of names and values, progress bars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.progress import Progress

TABLE_WIDTH = 200
"""Columns of a table whose ids are there to be copied: rather wider than the terminal than cut."""


def plain_console(*, stderr: bool = False) -> Console:
    """Console that neither highlights nor breaks lines, so that its output can be copied."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table_console(width: int = TABLE_WIDTH) -> Console:
    """Console of a fixed width, in characters, for tables."""
    return Console(highlight=False, width=width)


def print_error(text: str, *, style: str = 'bold red') -> None:
    """One styled line on stderr; ``text`` is plain, not markup."""
    plain_console(stderr=True).print(f'[{style}]{escape(text)}[/]')


def print_pairs(
    pairs: Iterable[tuple[str, str]], console: Console | None = None, width: int = 0
) -> None:
    """Names and values, one pair a line, the values under each other.

    Args:
        pairs: Name and value; both plain text.
        console: Where to print; standard output by default.
        width: Least width of the names, in characters.
    """
    pairs, console = list(pairs), console or plain_console()
    width = max([width, *(len(name) for name, _ in pairs)])
    for name, value in pairs:
        console.print(f'[bold]{escape(name.ljust(width))}[/]  {escape(value)}')


def progress_bars(console: Console | None = None) -> Progress:
    """Bars of a name, what is done of what there is to do, and the time that is left."""
    # Half of rich; most commands have no bar.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn('{task.description:>6}'), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)
