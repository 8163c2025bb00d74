# SPDX-License-Identifier: Apache-2.0
"""From a path, a URL or a ``uniformer://`` name to a file on this machine."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from mmengine.logging import print_log

from ..errors import CheckpointError
from .download import DiskFullError, DownloadError, fetch, record, sidecar_of
from .files import file_digests
from .zoo import SCHEME, Mirror, Row, find_by_digest, find_row

ENVIRONMENT = 'UNIFORMER_WEIGHTS'
_OPENMMLAB_HASH = re.compile(r'-([0-9a-f]{8})(?:_\d{8})?\.pth$')


@dataclass(frozen=True)
class ResolvedFile:
    """A file that was found or fetched.

    Attributes:
        path: The file.
        digests: Its ``sha256`` and ``md5``.
        row: Zoo row that it was asked for by, or that its hash belongs to.
        mirror: Mirror whose hash it has, or that it came from.
        known_by: ``'name'``, ``'hash'`` or ``''`` (from elsewhere).
    """

    path: Path
    digests: dict[str, str]
    row: Row | None = None
    mirror: Mirror | None = None
    known_by: str = ''


def weight_folders() -> list[Path]:
    """The folders of ``UNIFORMER_WEIGHTS``; the first is the cache, which downloads go to.

    Several are separated as in PATH. Default: ``uniformer_mm/weights`` in the user's cache folder.
    """
    named = [part for part in os.environ.get(ENVIRONMENT, '').split(os.pathsep) if part]
    if named:
        return [Path(part).expanduser() for part in named]
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return [Path(base).expanduser() / 'uniformer_mm' / 'weights']


def resolve_file(
    checkpoint: str | PathLike,
    *,
    folders: Sequence[str | PathLike] = (),
    download: bool = True,
) -> ResolvedFile:
    """Find the file that a checkpoint argument means.

    A zoo name is looked for in the cache, then in the other folders of ``UNIFORMER_WEIGHTS`` and
    ``folders``, then downloaded into the cache from its mirrors in order of preference.

    Args:
        checkpoint: Path; ``uniformer://`` and a row id, short name or file name of the zoo; or an
            ``http(s)://`` address.
        folders: More folders to look in.
        download: Whether to download what is not there.

    Returns:
        The file and what is known about it.

    Raises:
        CheckpointError: It is not there and cannot be had; the message says which file to put
            where, its hash and every mirror. Or a file that is there has the wrong hash.
        ValueError: The zoo has no such name.
    """
    text = os.fspath(checkpoint)
    if not text:
        raise CheckpointError(
            "checkpoint='' names no file; give a path or a name such as uniformer://small_in1k "
            '(all names: uniformer-mm zoo).'
        )
    if text.startswith(SCHEME):
        return _locate_row(find_row(text), [Path(f) for f in folders], download)
    if text.startswith(('http://', 'https://')):
        return _locate_url(text)
    path = Path(text).expanduser()
    try:
        digests = file_digests(path)
    except OSError:
        # read_checkpoint says in words what is wrong with the path.
        return ResolvedFile(path, {})
    known = find_by_digest(digests)
    return ResolvedFile(path, digests, *known, 'hash') if known else ResolvedFile(path, digests)


def _locate_row(row: Row, folders: Sequence[Path], download: bool) -> ResolvedFile:
    if not row.released:
        raise CheckpointError(
            f'{row.id} was never released by its authors (only its training log was); choose '
            'another row: uniformer-mm zoo --released.'
        )
    cache, *others = weight_folders()
    for folder in (cache, *others, *folders):
        for name in row.file_names:
            path = folder / name
            if os.path.isfile(path):  # False, too, where the folder cannot be read
                return _check_found(row, path, in_cache=folder == cache)
    failures: dict[str, str] = {}
    if download:
        for mirror in (m for m in row.mirrors if m.kind != 'page'):
            path = cache / row.file_at(mirror)
            try:
                digests = fetch(mirror, path, row_id=row.id)
            except DiskFullError:
                raise
            except DownloadError as error:
                failures[mirror.url] = str(error).removeprefix(f'{mirror.url}: ')
                print_log(f'{row.id}: {error}', logger='current', level=logging.WARNING)
                continue
            if not (mirror.md5 or mirror.sha256_prefix):
                _say_first_use(path, digests)
            return ResolvedFile(path, digests, row, mirror, 'name')
    raise CheckpointError(_how_to_get(row, cache, failures))


def _check_found(row: Row, path: Path, in_cache: bool) -> ResolvedFile:
    try:
        digests = file_digests(path)
    except PermissionError:
        raise CheckpointError(
            f'{path}: no permission to read it; change its mode (chmod +r) or copy it.'
        ) from None
    mirrors = [
        mirror
        for mirror in row.mirrors
        if row.file_at(mirror) == path.name and mirror.kind != 'page'
    ]
    match = next(
        (m for m in mirrors if (m.md5 or m.sha256_prefix) and not m.contradicts(digests)), None
    )
    if match:
        return ResolvedFile(path, digests, row, match, 'name')
    open_mirrors = [mirror for mirror in mirrors if not (mirror.md5 or mirror.sha256_prefix)]
    if not open_mirrors:
        raise CheckpointError(
            f'{path}: wrong hash for {row.id} (expected '
            f'{" or ".join(m.hash_text for m in mirrors)}, got md5 {digests["md5"]}); move it '
            'away to have it downloaded again, or load it by its path.'
        )
    sidecar = sidecar_of(path)
    if sidecar.exists():
        recorded = json.loads(sidecar.read_text(encoding='utf-8'))
        if recorded.get('sha256') != digests['sha256']:
            raise CheckpointError(
                f'{path} has changed since its first use (sha256 {digests["sha256"][:16]}..., '
                f'recorded {str(recorded.get("sha256"))[:16]}... in {sidecar.name}); fetch it '
                f'again, or delete {sidecar.name} if the change is yours.'
            )
    elif in_cache:
        record(path, digests, url=None, row_id=row.id)
        _say_first_use(path, digests)
    return ResolvedFile(path, digests, row, open_mirrors[0], 'name')


def _locate_url(url: str) -> ResolvedFile:
    name = url.split('?')[0].rpartition('/')[2]
    if not name:
        raise CheckpointError(f'{url} names no file.')
    prefix = _OPENMMLAB_HASH.search(name)
    mirror = Mirror('url', url, sha256_prefix=prefix[1] if prefix else '')
    path = weight_folders()[0] / name
    digests = fetch(mirror, path)
    if mirror.contradicts(digests):
        raise CheckpointError(f'{path}: wrong hash (expected {mirror.hash_text}); delete it.')
    known = find_by_digest(digests)
    return (
        ResolvedFile(path, digests, *known, 'hash')
        if known
        else ResolvedFile(path, digests, None, mirror)
    )


def _say_first_use(path: Path, digests: dict[str, str]) -> None:
    print_log(
        f'{path}: no hash is published for it; first use, sha256 {digests["sha256"]} recorded in '
        f'{sidecar_of(path).name}',
        logger='current',
        level=logging.WARNING,
    )


def _how_to_get(row: Row, cache: Path, failures: dict[str, str]) -> str:
    """One sentence for people without a network, and every mirror."""
    places = []
    for mirror in row.mirrors:
        why = f'; {failures[mirror.url]}' if mirror.url in failures else ''
        note = 'for browsers only, ' if mirror.kind == 'page' else ''
        places.append(f'{mirror.url} ({note}{row.file_at(mirror)}, {mirror.hash_text}{why})')
    folder = row.family.drive_folder
    if folder:
        places.append(f'https://drive.google.com/drive/folders/{folder} (all of its family)')
    return (
        f'{SCHEME}{row.name or row.id} is not on this machine and was not downloaded; put '
        f'{row.file} into {cache} (or a folder named in {ENVIRONMENT}), from one of: '
        + '; '.join(places)
        + '.'
    )
