# SPDX-License-Identifier: Apache-2.0
"""The newest checkpoint of a work folder that can be resumed."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTER = 'last_checkpoint'
# What mmengine's runner takes from a checkpoint that it resumes.
_NEEDED = ('meta', 'state_dict', 'message_hub')
# How reading fails: torch, pickle, zipfile and file systems, each in several ways.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    TypeError,
    AttributeError,
    AssertionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def newest_intact(
    folder: str | Path,
    read: Callable[[str], Any],
    warn: Callable[[str], object],
    suffix: str = '.pth',
) -> str | None:
    """The newest checkpoint of ``folder`` that a run can go on from.

    The pointer ``last_checkpoint`` says where to look first, if it names a file of ``folder``; it
    may be empty, stale or gone. Each file that had to be passed over is named in a warning.

    Args:
        folder: The work folder, or where the checkpoint hook writes.
        read: Reads a checkpoint and returns its content; raises if it cannot.
        warn: Takes the warnings.
        suffix: How checkpoints are called.

    Returns:
        The path, or None where the folder holds no checkpoint at all.

    Raises:
        ValueError: There are checkpoints, and none is intact.
    """
    folder = Path(folder)
    passed_over = []
    for path in _candidates(folder, warn, suffix):
        fault = fault_of(path, read)
        if fault is None:
            if passed_over:
                warn(f'Going on from {path}, the newest intact checkpoint.')
            return str(path)
        passed_over.append(path.name)
        warn(f'{path} cannot be resumed and is passed over: {fault}.')
    if passed_over:
        raise ValueError(
            f'resume: none of the {len(passed_over)} checkpoints in {folder} is intact '
            f'({", ".join(passed_over)}); name another with --resume FILE, or start without '
            '--resume in another --work-dir.'
        )
    return None


def _candidates(folder: Path, warn: Callable[[str], object], suffix: str) -> list[Path]:
    """Checkpoints from the newest on; best ones hold no optimizer and cannot be resumed."""
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.glob(f'*{suffix}')
        if not path.name.startswith(('best_', '.')) and path.is_file()
    ]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    pointed = _pointed_to(folder, warn)
    if pointed is not None:
        # Written last: what is newer than it was copied here, or is the save it died in.
        newer = [path for path in found if path.stat().st_mtime_ns > pointed.stat().st_mtime_ns]
        found = [*newer, pointed, *(path for path in found if path not in (*newer, pointed))]
    return found


def _pointed_to(folder: Path, warn: Callable[[str], object]) -> Path | None:
    pointer = folder / POINTER
    try:
        text = pointer.read_text(encoding='utf-8').strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        warn(f'{pointer} cannot be read ({error}); the newest file is taken instead.')
        return None
    name = Path(text).name
    if not name or '\0' in name or not (folder / name).is_file():
        warn(
            f'{pointer} names no file of this folder ({text!r}); the newest file is taken instead.'
        )
        return None
    return folder / name


def fault_of(path: Path, read: Callable[[str], Any]) -> str | None:
    """What keeps a checkpoint from being resumed, in words, or None.

    Args:
        path: The file.
        read: As for :func:`newest_intact`.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            return 'it is empty'
        content = read(str(path))
    except _UNREADABLE as error:
        reason = ' '.join(str(error).split())[:160]
        return f'it cannot be read ({type(error).__name__}: {reason})'
    if not isinstance(content, dict):
        return f'it holds a {type(content).__name__}, expected a dict'
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        return f'it has no {", ".join(missing)}'
    return None


def read_quietly(path: str) -> Any:
    """A checkpoint as mmengine reads it, on the CPU."""
    from mmengine.runner.checkpoint import _load_checkpoint

    # mmengine reports each file that it reads; most of these are not taken.
    logger = logging.getLogger('mmengine')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                # torch does not compare the checksums of tensors.
                bad = parts.testzip()
            if bad is not None:
                raise ValueError(f'the part {bad!r} does not match its checksum')
        return _load_checkpoint(path, map_location='cpu')
    finally:
        logger.setLevel(level)
