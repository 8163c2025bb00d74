# SPDX-License-Identifier: Apache-2.0
"""Results of finished samples on disk, so that an interrupted test goes on where it stopped.

One SQLite file for each process, only ever appended to; a batch is one transaction, so a killed
process leaves whole batches and nothing else. Metrics are computed from the stored results in the
order of the data set, whoever wrote them and in how many runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .codec import decode, encode

_PATTERN = 'predictions.{}.sqlite'
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL, path TEXT NOT NULL, seconds REAL NOT NULL,
    results BLOB NOT NULL
);
"""


@dataclass(frozen=True)
class Stored:
    """One finished sample.

    Attributes:
        position: Index in the data set.
        key: What the sample is (see :class:`~uniformer_mm.evaluation.running.samples.Sample`).
        path: Its image, video or folder of frames.
        seconds: Time of the network and the metrics for this sample.
        results: For each metric what it keeps of the sample.
    """

    position: int
    key: str
    path: str
    seconds: float
    results: list[Any]


class PredictionStore:
    """The results in a folder.

    Args:
        folder: Folder of the test run; must exist.
        identity: What the results depend on (weights, configuration, data list). None only reads.
        rank: Process that writes.

    Raises:
        ValueError: The folder holds results of another identity, or cannot be written.
    """

    def __init__(
        self, folder: str | Path, identity: dict[str, str] | None = None, rank: int = 0
    ) -> None:
        self.folder = Path(folder)
        self._connection: sqlite3.Connection | None = None
        if identity is None:
            return
        for path in self._files():
            _check_identity(path, identity)
        path = self.folder / _PATTERN.format(rank)
        try:
            self._connection = sqlite3.connect(path)
            self._connection.executescript(_SCHEMA)
            if _identity_of(self._connection) is None:
                self._connection.execute(
                    'INSERT INTO identity VALUES (?)', (json.dumps(identity, sort_keys=True),)
                )
            self._connection.commit()
        except sqlite3.OperationalError as error:
            raise ValueError(
                f'{path} cannot be written ({error}); choose another folder.'
            ) from None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(_PATTERN.format('*')))

    def add(self, samples: Sequence[Stored]) -> None:
        """Append a batch: after this returns, it survives the end of the process."""
        assert self._connection is not None, 'this store was opened for reading'
        with self._connection:
            self._connection.executemany(
                'INSERT INTO samples VALUES (?, ?, ?, ?, ?)',
                [(s.position, s.key, s.path, s.seconds, encode(s.results)) for s in samples],
            )

    def finished(self) -> set[int]:
        """Positions of all finished samples, of all processes."""
        found: set[int] = set()
        for path in self._files():
            with closing(_open(path)) as connection:
                found.update(row[0] for row in connection.execute('SELECT position FROM samples'))
        return found

    def read(self) -> Iterator[Stored]:
        """All finished samples in the order of the data set, each once."""
        with ExitStack() as stack:
            places: dict[int, sqlite3.Connection] = {}
            for path in self._files():
                connection = stack.enter_context(closing(_open(path)))
                for (position,) in connection.execute('SELECT position FROM samples'):
                    places.setdefault(position, connection)
            for position in sorted(places):
                row = places[position].execute(
                    'SELECT key, path, seconds, results FROM samples WHERE position = ?',
                    (position,),
                )
                key, path, seconds, results = row.fetchone()
                yield Stored(position, key, path, seconds, decode(results))

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path)


def _identity_of(connection: sqlite3.Connection) -> dict[str, str] | None:
    try:
        row = connection.execute('SELECT value FROM identity').fetchone()
    except sqlite3.OperationalError:  # killed before the tables were made
        return None
    return json.loads(row[0]) if row else None


def _check_identity(path: Path, identity: dict[str, str]) -> None:
    try:
        with closing(_open(path)) as connection:
            found = _identity_of(connection)
    except sqlite3.DatabaseError as error:
        raise ValueError(f'{path} is no store of predictions ({error}); delete it.') from None
    if found is None or found == identity:
        return
    changed = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
    raise ValueError(
        f'{path.parent} holds the results of another test ({", ".join(changed)} differ); choose '
        'another --work-dir, or --restart to throw them away.'
    )
