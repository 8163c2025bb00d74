# SPDX-License-Identifier: Apache-2.0
"""Reading untrusted files: bounded sizes, no extraction, no code.

Archives are read member by member into memory, never unpacked. What a zip file says about its
members is checked before any of them is read, and :mod:`zipfile` hands out no more bytes than the
directory states.
"""

from __future__ import annotations

import json
import math
import re
import stat
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from .issues import shown

MIB = 2**20
# Twice what the masks of 100 objects on each of the 20,288 test-dev images take.
JSON_LIMIT = 2048 * MIB
ARCHIVE_LIMIT = 4096 * MIB
MEMBER_LIMIT = 100_000
# JSON shrinks about ten times, stored PNG files hardly; a bomb a thousand times and more.
RATIO_LIMIT = 200
_METHODS = {zipfile.ZIP_STORED: 'stored', zipfile.ZIP_DEFLATED: 'deflated'}
_ENCRYPTED = 0x1


class Members:
    """The files of a zip archive or of a folder, by name, read into memory one at a time.

    Attributes:
        path: The archive or folder.
        names: Names of its files, as stored, with ``/`` between folders.
    """

    def __init__(self, path: Path, names: list[str], read: Callable[[str], bytes]) -> None:
        self.path = path
        self.names = names
        self._read = read

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: It is damaged or larger than any file of a submission.
        """
        return self._read(name)


def open_members(path: str | PathLike) -> Members:
    """Open a zip archive or a folder.

    Raises:
        ValueError: Missing, no archive, or an archive that must not be read: names that leave the
            folder, links, passwords, foreign compression, sizes beyond all submissions.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(
            file.relative_to(path).as_posix() for file in path.rglob('*') if file.is_file()
        )
        return Members(path, names, lambda name: read_bytes(path / name))
    if not path.is_file():
        raise ValueError(f'{path}: no such file or folder.')
    try:
        archive = zipfile.ZipFile(path)
    # zipfile's NotImplementedError: the archive demands a version of the format it does not know.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ValueError(f'{path}: not a readable zip archive ({error}).') from error
    _refuse_bombs(path, archive.infolist())
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    return Members(path, names, lambda name: _read_member(path, archive, name))


def _refuse_bombs(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MEMBER_LIMIT:
        raise ValueError(
            f'{path}: {len(entries):,} members; no submission has more than {MEMBER_LIMIT:,}.'
        )
    total = 0
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        where = f'{path}: member {shown(name)}'
        parts = re.split(r'[/\\]', name)
        if name.startswith(('/', '\\')) or '..' in parts or ':' in parts[0] or '\\' in name:
            raise ValueError(f'{where} leads out of the archive; it is not read.')
        if name in seen:
            raise ValueError(f'{where} is there twice; which one counts is not defined.')
        seen.add(name)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f'{where} is a link; a submission holds files only.')
        if entry.flag_bits & _ENCRYPTED:
            raise ValueError(f'{where} has a password; write the archive without one.')
        if entry.compress_type not in _METHODS:
            raise ValueError(
                f'{where} has compression method {entry.compress_type}; expected one of '
                f'{list(_METHODS.values())}.'
            )
        total += entry.file_size
        if entry.file_size > MIB and entry.file_size > RATIO_LIMIT * max(entry.compress_size, 1):
            raise ValueError(
                f'{where} grows from {entry.compress_size:,} to {entry.file_size:,} bytes; more '
                f'than {RATIO_LIMIT} times is a zip bomb and is not read.'
            )
        if total > ARCHIVE_LIMIT:
            raise ValueError(
                f'{path}: more than {ARCHIVE_LIMIT // MIB:,} MiB unpacked; no submission is so big.'
            )


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > JSON_LIMIT:
        raise ValueError(_too_large(f'{path}: member {shown(name)}', size))
    try:
        return archive.read(name)
    # zipfile raises what its decompressors raise on damaged data.
    except Exception as error:
        raise ValueError(f'{path}: member {shown(name)} is damaged ({error}).') from error


def read_bytes(path: str | PathLike) -> bytes:
    """The bytes of a file of bounded size.

    Raises:
        ValueError: Missing, unreadable, or larger than any file of a submission.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise ValueError(_too_large(str(path), size))
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f'{path}: cannot be read ({error.strerror}).') from error


def _too_large(where: str, size: int) -> str:
    return f'{where} has {size:,} bytes; more than {JSON_LIMIT // MIB:,} MiB is not read.'


def parse_json(content: bytes, name: str) -> Any:
    """JSON as the standard defines it: no NaN, no Infinity, no key twice in one object.

    Args:
        content: UTF-8 text.
        name: The file, for messages.

    Raises:
        ValueError: Not JSON; the message says where.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f'{name}: {constant} is not a JSON number; write finite numbers only.')

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys: set[str] = set()
            twice = next(key for key, _ in items if key in keys or keys.add(key))
            raise ValueError(f'{name}: key {shown(twice)} is there twice in one object.')
        return found

    try:
        text = content.decode('utf-8-sig')
        return json.loads(text, parse_constant=refuse, object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{name}: not UTF-8 text ({error.reason} at byte {error.start}).'
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{name}: not JSON (line {error.lineno}, column {error.colno}: {error.msg}).'
        ) from error
    except RecursionError as error:
        raise ValueError(f'{name}: nested too deeply to be a submission.') from error
    except ValueError as error:  # ours, and Python's about integers of thousands of digits
        text = str(error)
        raise ValueError(text if text.startswith(name) else f'{name}: {text}.') from error


def is_integer(value: object) -> bool:
    """Whether a JSON value is an integer; ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number; ``true`` is none, nor is ``1e999``."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_integer(value) and abs(value) < 2**63
