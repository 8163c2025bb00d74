# SPDX-License-Identifier: Apache-2.0
"""Something-Something V2: one line per video with the indices of the five best classes.

Source of the format: mit-han-lab/temporal-shift-module, ``test_models.py --csv_file``:
``video_id;c1;c2;c3;c4;c5``, best first, no header.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from .findings import Findings, shown
from .reading import read_bytes
from .video_scores import VideoScores
from .writing import prepare, require_plain, write_text

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
) -> tuple[Path, Findings]:
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
    findings = Findings(str(target))
    if missing:
        findings.note(f'{missing:,} of {len(official):,} videos have no line: they count as wrong')
    write_text(target, '\n'.join(lines) + '\n')
    return target, findings


def read_ssv2(path: str | PathLike, findings: Findings) -> dict[str, list[int]]:
    """Read and check the lines of a csv file.

    Args:
        path: The file.
        findings: Where faults go.

    Returns:
        Class indices by video id, of the lines without a fault.

    Raises:
        ValueError: Unreadable.
    """
    try:
        lines = read_bytes(path).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not UTF-8 text (byte {error.start}).') from error
    found: dict[str, list[int]] = {}
    if not lines:
        findings.add('empty', '', 'no lines at all')
    for number, line in enumerate(lines, 1):
        video, *words = line.split(';')
        where = f'line {number} (video {shown(video)})'
        if len(words) != TOP:
            findings.add(
                'wrong number of classes',
                where,
                f'{len(words)} values after the id, expected {TOP}, separated by ";"',
            )
            continue
        wrong = [word for word in words if not re.fullmatch(r'[0-9]{1,3}', word)]
        wrong = wrong or [word for word in words if int(word) >= CLASSES]
        if wrong:
            findings.add(
                'bad class index', where, f'{shown(wrong[0])}, expected 0 to {CLASSES - 1}'
            )
            continue
        classes = [int(word) for word in words]
        if len(set(classes)) < TOP:
            findings.add('class twice', where, f'{classes}')
        elif video in found:
            findings.add('video twice', where, 'has an earlier line')
        else:
            found[video] = classes
    return found


def check_ssv2(
    path: str | PathLike, findings: Findings, *, official: list[str] | None = None
) -> None:
    """Check a csv file of results.

    Raises:
        ValueError: Unreadable.
    """
    found = read_ssv2(path, findings)
    if official is None:
        findings.unchecked = 'ids'
        return
    listed = set(official)
    for video in found:
        if video not in listed:
            findings.add('video not in the official list', shown(video), f'not among {len(listed)}')
    for video in official:
        if video not in found:
            findings.add('video missing', shown(video), 'every test video needs a line')
