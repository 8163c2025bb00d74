# SPDX-License-Identifier: Apache-2.0
"""Output files that are whole or absent."""

from __future__ import annotations

import os
import re
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Archives of equal content are equal to the byte; 1980 is the first year a zip file can state.
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644


def require_plain(name: str, *, underscore: bool = True) -> None:
    """Raise unless the name of an entry is fit for a file name.

    Args:
        name: Name that the user chose.
        underscore: Whether it may hold underscores; COCO's file names are split at them.

    Raises:
        ValueError: Other characters.
    """
    allowed = 'letters, digits, ".", "+", "-"' + (', "_"' if underscore else '')
    if not re.fullmatch(r'[A-Za-z0-9.+_-]+', name) or ('_' in name and not underscore):
        raise ValueError(f'name={name!r}: use only {allowed}.')


def prepare(path: Path, *, overwrite: bool) -> Path:
    """Make the folder of an output file and see that it can be written, before any work is done.

    Raises:
        ValueError: The file exists and ``overwrite`` is off, or its folder takes no files.
    """
    try:
        if path.is_dir():
            raise ValueError(f'{path}: is a folder, but a file is to be written there.')
        if path.exists() and not overwrite:
            raise ValueError(f'{path}: exists; pass --overwrite to replace it.')
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f'{path}: cannot be written ({error.strerror}); name another place.'
        ) from error
    return path


@contextmanager
def replacing(path: Path, named: str | None = None) -> Iterator[Path]:
    """A temporary sibling of ``path`` that takes its place on success and vanishes on failure.

    Args:
        path: The final name.
        named: What errors call it, such as ``"output='x'"``; the path by default.

    Raises:
        ValueError: The disk refused; nothing is left behind.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        # Else a power cut right after the renaming leaves an empty file under the final name.
        with temporary.open('rb') as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f'{named or path}: cannot be written ({error.strerror or error}); name another place.'
        ) from error
    finally:
        # A folder that is none cannot be cleared; the error above says so.
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8', newline='')


def write_zip(path: Path, members: Iterable[tuple[str, bytes]], *, compress: bool) -> None:
    """Write a zip archive, whole or not at all.

    Args:
        path: The archive.
        members: Names and contents, taken one at a time.
        compress: Deflate the contents; PNG files are compressed already.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w', method) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = method
            entry.external_attr = _MODE << 16
            archive.writestr(entry, content)


def _temporary(path: Path) -> Path:
    return path.parent / f'.{path.name}.unfinished-{secrets.token_hex(4)}'
