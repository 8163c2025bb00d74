# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all: temporary name, sync, rename, sync of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

UNFINISHED = '.unfinished'


def unfinished_name(path: Path) -> Path:
    """Where a file lies until it is whole: ``.NAME.unfinished`` beside its final name."""
    return path.with_name(f'.{path.name}{UNFINISHED}')


def publish(unfinished: Path, path: Path) -> None:
    """Sync a file, or a folder of files, give it its final name, and sync the folder around it.

    What lay under ``path`` before stays until the new one takes its name. A process that is killed
    before leaves ``path`` as it was.

    Args:
        unfinished: What was written, in the same folder as ``path``.
        path: Final name.

    Raises:
        OSError: As the file system says.
    """
    files = [file for file in unfinished.rglob('*') if file.is_file()] or [unfinished]
    for file in files:
        _sync(file)
    if path.is_dir():
        # A folder takes the place of an empty one only.
        shutil.rmtree(path)
    os.replace(unfinished, path)
    _sync(path.parent)


def remove(path: str | Path) -> None:
    """Delete a file or a folder, if it is there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear_unfinished(folder: str | Path) -> list[str]:
    """Delete what killed processes left unfinished in ``folder``; returns the names."""
    left = sorted(Path(folder).glob(f'.*{UNFINISHED}'))
    for path in left:
        remove(path)
    return [path.name for path in left]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
