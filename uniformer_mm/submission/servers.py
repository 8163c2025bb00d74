# SPDX-License-Identifier: Apache-2.0
"""What is known about each benchmark's server, and as of when."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Server:
    """A line of ``servers.csv``.

    Attributes:
        task: Name of the task on the command line.
        benchmark: What is submitted where.
        as_of: Month of the newest source.
        state: What was seen; nobody has submitted a file of this package anywhere.
        limits: Known limits on submissions.
        source: Where that is from.
    """

    task: str
    benchmark: str
    as_of: str
    state: str
    limits: str
    source: str

    def lines(self) -> list[str]:
        """What every writer prints."""
        return [
            f'server of {self.benchmark}, as of {self.as_of}: {self.state}',
            f'limits: {self.limits} (source: {self.source})',
            'the format was checked here; no server has accepted a file of this program yet',
        ]


@cache
def servers() -> dict[str, Server]:
    """All servers by task."""
    with files(__package__).joinpath('servers.csv').open(encoding='utf-8', newline='') as file:
        return {line['task']: Server(**line) for line in csv.DictReader(file)}
