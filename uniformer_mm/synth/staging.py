# SPDX-License-Identifier: Apache-2.0
"""A folder that appears complete or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path, megabytes: int) -> Iterator[Path]:
    """A hidden sibling of ``target`` that takes its place on success and vanishes on failure.

    The folder is locked while it is built. One that a killed process has left is not locked any
    more, and the next call for the same target removes it.

    Args:
        target: Folder to create or to replace as a whole.
        megabytes: Disk space that is needed, in MiB.

    Yields:
        The folder to write into.

    Raises:
        ValueError: If the disk lacks space.
        OSError: If a folder cannot be made or renamed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free / 2**20
    if free < megabytes:
        raise ValueError(
            f'{target.parent} has {free:.0f} MiB free, but {megabytes} MiB are needed; free some '
            f'space or give another folder'
        )
    prefix = f'.{target.name}.unfinished-'
    for path in target.parent.iterdir():
        if path.name.startswith(prefix):
            _remove_unless_locked(path)
    folder = target.parent / f'{prefix}{secrets.token_hex(4)}'
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
        _replace(target, folder)
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unless_locked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:  # somebody is writing it
        return
    finally:
        os.close(handle)


def _replace(target: Path, folder: Path) -> None:
    """Renames ``folder`` to ``target``; puts an old ``target`` back if that fails."""
    old = target.parent / f'.{target.name}.replaced-{secrets.token_hex(4)}'
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Fills the existing folder ``target`` with ``source``'s files, by hard links if possible."""
    shutil.copytree(source, target, symlinks=True, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
