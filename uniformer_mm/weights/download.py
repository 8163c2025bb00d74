# SPDX-License-Identifier: Apache-2.0
"""Fetching one file: resumed, checked, and under its final name only when it is whole.

The transfer itself is gdown's, which serves Google Drive and plain URLs alike.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from ..errors import CheckpointError
from .files import file_digests, sniff_page
from .zoo import Mirror

RETRIES = 2
# Seconds to wait for a connection, and between two pieces of the answer.
TIMEOUT = (10, 60)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EROFS)


class DownloadError(CheckpointError):
    """A mirror did not give the file."""


class DiskFullError(CheckpointError):
    """The file does not fit on the disk; no other mirror could help."""


def fetch(mirror: Mirror, target: Path, *, row_id: str | None = None) -> dict[str, str]:
    """Download a mirror's file to ``target``, unless another process has just done so.

    Pieces lie beside ``target`` under other names; a later call resumes them. A file of the wrong
    hash is kept aside as ``NAME.rejected``.

    Args:
        mirror: Where to download from.
        target: Final path; its folder is made.
        row_id: Zoo row, for the record.

    Returns:
        ``sha256`` and ``md5`` of the file, which are also recorded in ``NAME.json`` beside it.

    Raises:
        DownloadError: The mirror cannot be reached, refuses, or gives something else.
        DiskFullError: No space left.
        CheckpointError: gdown is missing, or the folder cannot be written.
    """
    if importlib.util.find_spec('gdown') is None:
        raise CheckpointError('downloads need the gdown package: pip install gdown.')
    from filelock import FileLock

    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if target.exists():
                return file_digests(target)
            # Pieces of one mirror must not be continued with those of another.
            piece = target.with_name(f'{target.name}.{zlib.crc32(mirror.url.encode()):08x}')
            _transfer(mirror, piece)
            digests = _check(mirror, piece, target)
            record(target, digests, url=mirror.url, row_id=row_id)
            os.replace(piece, target)
    return digests


def record(
    path: Path, digests: dict[str, str], *, url: str | None, row_id: str | None
) -> dict[str, str | int | None]:
    """Write ``NAME.json`` beside a file: its hashes, size and origin."""
    known = {
        'row': row_id,
        'url': url,
        **digests,
        'recorded': date.today().isoformat(),
    }
    sidecar = sidecar_of(path)
    temporary = sidecar.with_name(f'{sidecar.name}.{os.getpid()}')
    temporary.write_text(json.dumps(known, indent=1) + '\n', encoding='utf-8')
    os.replace(temporary, sidecar)
    return known


def sidecar_of(path: Path) -> Path:
    """Where the record of a file lies."""
    return path.with_name(f'{path.name}.json')


def _transfer(mirror: Mirror, piece: Path) -> None:
    import gdown
    from gdown.exceptions import DownloadError as GdownError
    from requests.exceptions import RequestException

    place = {'id': mirror.address} if mirror.kind == 'drive' else {'url': mirror.url}
    try:
        with _progress(piece.stem) as progress:
            gdown.download(
                **place,
                output=str(piece),
                quiet=True,
                use_cookies=False,
                resume=True,
                progress=progress,
                timeout=TIMEOUT,
                retries=RETRIES,
            )
    except (GdownError, RequestException) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        reason = ' '.join(str(error).split())[:160]
        raise DownloadError(f'{mirror.url}: {reason}') from None


def _check(mirror: Mirror, piece: Path, target: Path) -> dict[str, str]:
    with open(piece, 'rb') as file:
        head = file.read(512)
    page = 'an empty answer' if not head else sniff_page(head)
    if page:
        piece.unlink()
        raise DownloadError(f'{mirror.url}: sent {page}')
    digests = file_digests(piece)
    if mirror.contradicts(digests):
        aside = target.with_name(f'{target.name}.rejected')
        os.replace(piece, aside)
        raise DownloadError(
            f'{mirror.url}: wrong hash (expected {mirror.hash_text}, got md5 {digests["md5"]}, '
            f'sha256 {digests["sha256"][:16]}...); kept aside as {aside}, not loaded'
        )
    return digests


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say in words what keeps a file from being written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = shutil.disk_usage(target.parent).free // 2**20
            raise DiskFullError(
                f'{target}: no space left ({free} MiB free in {target.parent}); free some and try '
                'again (the download will be resumed), or set UNIFORMER_WEIGHTS to another folder.'
            ) from None
        if isinstance(error, PermissionError):
            raise CheckpointError(
                f'{target.parent}: no permission to write; set UNIFORMER_WEIGHTS to a folder of '
                'yours.'
            ) from None
        if error.errno in _NO_FOLDER:
            raise CheckpointError(
                f'{target.parent} cannot be used as a folder ({error.strerror}); set '
                'UNIFORMER_WEIGHTS to a folder of yours.'
            ) from None
        raise


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ('{task.description}', BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
