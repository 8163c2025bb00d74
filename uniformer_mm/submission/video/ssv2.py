# SPDX-License-Identifier: Apache-2.0
"""Something-Something V2: one line per video with the indices of the five best classes.

Source of the format: mit-han-lab/temporal-shift-module, ``test_models.py --csv_file``:
``video_id;c1;c2;c3;c4;c5``, best first, no header.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from ...files import prepare, require_plain, write_text
from ..issues import Issues, shown
from ..reading import read_bytes
from .predictions import VideoScores

CLASSES = 174
TOP = 5


def write_ssv2(
    scores: VideoScores,
    official: list[str],
    folder: str | PathLike,
    *,
    algorithm: str,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> tuple[Path, Issues]:
    """Write the csv file of a leaderboard entry.

    Args:
        scores: Scores of every video, classes in the order of ``labels.json``.
        official: Ids of the videos of the test set.
        folder: Where to write.
        algorithm: Name of the entry; the benchmark prescribes no file name.
        allow_missing: Write a file although listed videos have no scores.
        overwrite: Replace an existing file.

    Returns:
        The file, and notes on it.

    Raises:
        ValueError: Scores that do not fit the list, or output that cannot be written.
    """
    require_plain(algorithm)
    target = prepare(Path(folder) / f'ssv2_{algorithm}_results.csv', overwrite=overwrite)
    scores.require_classes(CLASSES, 'Something-Something V2')
    scores, missing = scores.require_videos(official, allow_missing=allow_missing)
    lines = [
        ';'.join([video, *map(str, best)])
        for video, best in zip(scores.ids, scores.top(TOP).tolist(), strict=True)
    ]
    issues = Issues(str(target))
    if missing:
        issues.note(f'{missing:,} of {len(official):,} videos have no line: they count as wrong')
    write_text(target, '\n'.join(lines) + '\n')
    return target, issues


def read_ssv2(path: str | PathLike, issues: Issues) -> dict[str, list[int]]:
    """Read and check the lines of a csv file.

    Args:
        path: The file.
        issues: Where issues go.

    Returns:
        Class indices by video id, of the lines without an issue.

    Raises:
        ValueError: Unreadable.
    """
    try:
        lines = read_bytes(path).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not UTF-8 text (byte {error.start}).') from error
    found: dict[str, list[int]] = {}
    if not lines:
        issues.add('empty', '', 'no lines at all')
    for number, line in enumerate(lines, 1):
        video, *words = line.split(';')
        where = f'line {number} (video {shown(video)})'
        if len(words) != TOP:
            issues.add(
                'wrong number of classes',
                where,
                f'{len(words)} values after the id, expected {TOP}, separated by ";"',
            )
            continue
        wrong = [word for word in words if not re.fullmatch(r'[0-9]{1,3}', word)]
        wrong = wrong or [word for word in words if int(word) >= CLASSES]
        if wrong:
            issues.add('bad class index', where, f'{shown(wrong[0])}, expected 0 to {CLASSES - 1}')
            continue
        classes = [int(word) for word in words]
        if len(set(classes)) < TOP:
            issues.add('class twice', where, f'{classes}')
        elif video in found:
            issues.add('video twice', where, 'has an earlier line')
        else:
            found[video] = classes
    return found


def check_ssv2(path: str | PathLike, issues: Issues, *, official: list[str] | None = None) -> None:
    """Check a csv file of results.

    Raises:
        ValueError: Unreadable.
    """
    found = read_ssv2(path, issues)
    if official is None:
        issues.unchecked = 'ids'
        return
    listed = set(official)
    for video in found:
        if video not in listed:
            issues.add('video not in the official list', shown(video), f'not among {len(listed)}')
    for video in official:
        if video not in found:
            issues.add('video missing', shown(video), 'every test video needs a line')
