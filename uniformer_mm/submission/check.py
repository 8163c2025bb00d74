# SPDX-License-Identifier: Apache-2.0
"""Checking a leaderboard file of any benchmark, offline."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from .ade20k.archive import check_ade20k
from .coco.check import FILE_TYPES
from .coco.write import check_coco
from .issues import Issues
from .official import read_coco_images, read_image_stems, read_videos
from .reading import open_members
from .usual_lists import usual_list
from .video.kinetics import check_kinetics
from .video.ssv2 import check_ssv2

TASKS = (*FILE_TYPES, 'ade20k', 'kinetics', 'ssv2')
_COCO = 'coco'


def check_file(
    path: str | PathLike,
    *,
    ids: str | PathLike | None = None,
    task: str | None = None,
    data: Path | None = None,
) -> tuple[str, Issues]:
    """Find everything that is wrong with a leaderboard file.

    Args:
        path: The file or, for ADE20K, also the folder that is to be packed.
        ids: The official list: COCO's ``image_info`` file, the folder or list of ADE20K's test
            images, the list of Kinetics' or Something-Something's test videos.
        task: One of :data:`TASKS`; seen from the file where None.
        data: Root of the data sets, where the list is looked for if ``ids`` is None.

    Returns:
        The task, and the issues and notes.

    Raises:
        ValueError: The file or list cannot be read, or must not be (see :mod:`.reading`).
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f'{path}: no such file or folder.')
    issues = Issues(str(path))
    kind = task or guess_kind(path)
    if ids is None and data is not None:
        ids = usual_list(path, kind, data)
        if ids is not None:
            issues.note(f'compared with the list that lies in its usual place: {ids}')
    if kind == _COCO or kind in FILE_TYPES:
        images = read_coco_images(ids) if ids is not None else None
        return check_coco(path, issues, task=task, images=images), issues
    if kind == 'ade20k':
        stems = read_image_stems(ids) if ids is not None else None
        check_ade20k(open_members(path), issues, stems=stems)
        return kind, issues
    official = list(read_videos(ids)) if ids is not None else None
    check = {'kinetics': check_kinetics, 'ssv2': check_ssv2}[kind]
    check(path, issues, official=official)
    return kind, issues


def guess_kind(path: Path) -> str:
    """The benchmark of a file: ``'coco'`` (one of three tasks) or a task.

    Raises:
        ValueError: No file of a known benchmark.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return 'ade20k'
    if suffix == '.zip':
        names = open_members(path).names
        if not names:
            raise ValueError(f'{path}: an archive without files.')
        suffixes = {Path(name).suffix.lower() for name in names}
        if '.json' in suffixes:
            return _COCO
        if '.png' in suffixes:
            return 'ade20k'
        raise ValueError(
            f'{path}: neither JSON nor PNG files in it ({len(names)} files); say what it is with '
            f'--task, one of {", ".join(TASKS)}.'
        )
    if suffix == '.csv':
        return 'ssv2'
    if suffix == '.json':
        return 'kinetics' if _first_character(path) == b'{' else _COCO
    raise ValueError(
        f'{path}: leaderboard files end in .zip, .json or .csv; say what it is with --task, one of '
        f'{", ".join(TASKS)}.'
    )


def _first_character(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(1024).removeprefix(b'\xef\xbb\xbf').lstrip()[:1]
    except OSError as error:
        raise ValueError(f'{path}: cannot be read ({error.strerror}).') from error
