# SPDX-License-Identifier: Apache-2.0
"""Kinetics-400/600: JSON with the names of the five best classes of each video.

Source of the format: activity-net.org, trimmed activity recognition of 2017 (Kinetics-400), and
its scorer ``eval_kinetics.py``, which rejects files without ``results``, ``version`` and
``external_data``. That the later challenges took the same format is assumed, not verified.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from ...files import prepare, require_plain, write_text
from ...labels import CLASS_ORDERS, class_names
from ..issues import Issues, shown
from ..reading import is_number, parse_json, read_bytes
from .predictions import VideoScores

VERSION = 'KINETICS VERSION 1.0'
TOP = 5
_DATA_SETS = {400: 'kinetics400', 600: 'kinetics600'}


def label_names(order: str) -> tuple[str, ...]:
    """Class names as the Kinetics csv files write them, in an class order.

    The authors' list of Kinetics-600 has underscores for spaces.

    Raises:
        ValueError: An unknown order.
    """
    return tuple(name.replace('_', ' ') for name in class_names(order))


def choose_order(stated: str | None, asked: str | None, source: str) -> str:
    """The class order of scores, from the file and the command line.

    Raises:
        ValueError: Neither says it, both say different ones, or it is unknown.
    """
    order = asked or stated
    if order is None:
        raise ValueError(
            f'{source}: does not say which class each score belongs to; pass --class-order, one of '
            f'{", ".join(CLASS_ORDERS)} (mmaction2 and the configs here: alphabetical; the '
            "authors' weights: official)."
        )
    if stated and asked and stated != asked:
        raise ValueError(f'{source}: states class_order {stated}, but --class-order says {asked}.')
    class_names(order)
    return order


def write_kinetics(
    scores: VideoScores,
    order: str,
    official: list[str],
    folder: str | PathLike,
    *,
    algorithm: str,
    external_data: str | None,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> tuple[Path, Issues]:
    """Write the JSON file of a leaderboard entry.

    Args:
        scores: Scores of every video.
        order: Class order.
        official: Ids of the videos of the test set.
        folder: Where to write.
        algorithm: Name of the entry; the benchmark prescribes no file name.
        external_data: What was used beside Kinetics, such as weights trained on ImageNet; None
            if nothing was.
        allow_missing: Write a file although listed videos have no scores.
        overwrite: Replace an existing file.

    Returns:
        The file, and notes on it.

    Raises:
        ValueError: Scores that do not fit the list or the class order, or output that cannot
            be written.
    """
    require_plain(algorithm)
    names = label_names(order)
    data_set = _DATA_SETS[len(names)]
    target = prepare(Path(folder) / f'{data_set}_{algorithm}_results.json', overwrite=overwrite)
    scores.require_classes(len(names), data_set)
    scores, missing = scores.require_videos(official, allow_missing=allow_missing)
    probabilities_NC = scores.probabilities()
    results = {
        video: [{'label': names[c], 'score': float(row_C[c])} for c in best]
        for video, best, row_C in zip(scores.ids, scores.top(TOP), probabilities_NC, strict=True)
    }
    content = {
        'version': VERSION,
        'results': results,
        'external_data': {'used': external_data is not None, 'details': external_data or ''},
    }
    issues = Issues(str(target))
    check_content(content, issues, official=official if not missing else None)
    issues.refuse('Nothing was written.')
    issues.notes = [f'classes in the order {order}']
    if probabilities_NC is not scores.scores:
        issues.note('scores outside 0..1 were taken for logits and written as their softmax')
    if missing:
        issues.note(f'{missing:,} of {len(official):,} videos have no entry: they count as wrong')
    write_text(target, json.dumps(content, ensure_ascii=False, allow_nan=False))
    return target, issues


def check_kinetics(
    path: str | PathLike, issues: Issues, *, official: list[str] | None = None
) -> None:
    """Check a JSON file of results.

    Raises:
        ValueError: Unreadable.
    """
    content = parse_json(read_bytes(path), str(path))
    check_content(content, issues, official=official)


def check_content(content: object, issues: Issues, *, official: list[str] | None) -> None:
    """Check the JSON value of a file of results."""
    if not isinstance(content, dict):
        issues.add('wrong structure', '', f'{shown(content)}, expected an object')
        return
    if content.get('version') != VERSION:
        issues.add(
            'wrong version', 'version', f'{shown(content.get("version"))}, expected {VERSION!r}'
        )
    external = content.get('external_data')
    if (
        not isinstance(external, dict)
        or not isinstance(external.get('used'), bool)
        or not isinstance(external.get('details'), str)
    ):
        issues.add(
            'wrong external_data',
            'external_data',
            f'{shown(external)}, expected {{"used": true or false, "details": text}}',
        )
    elif external['used'] and not external['details'].strip():
        issues.add('wrong external_data', 'external_data', 'used is true, details are empty')
    for key in content.keys() - {'version', 'results', 'external_data'}:
        issues.add('unknown key', shown(key), 'does not belong there')
    results = content.get('results')
    if not isinstance(results, dict) or not results:
        issues.add('empty', 'results', f'{shown(results)}, expected entries by video id')
        return
    names = _label_set(results, issues)
    for video, entries in results.items():
        _check_video(video, entries, names, issues)
    if official is None:
        issues.unchecked = 'ids'
        return
    listed = set(official)
    for video in results:
        if video not in listed:
            issues.add('video not in the official list', shown(video), f'not among {len(listed)}')
    for video in official:
        if video not in results:
            issues.add('video missing', shown(video), 'every test video needs an entry')


def _label_set(results: dict, issues: Issues) -> frozenset[str]:
    """The class names of the data set that most labels of the first videos belong to."""
    used = [
        entry['label']
        for entries in list(results.values())[:200]
        if isinstance(entries, list)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get('label'), str)
    ]
    sets = [frozenset(label_names(f'{name}_official')) for name in _DATA_SETS.values()]
    best = max(sets, key=lambda names: sum(label in names for label in used))
    issues.note(f'labels were compared with those of {_DATA_SETS[len(best)]}')
    return best


def _check_video(video: str, entries: object, names: frozenset[str], issues: Issues) -> None:
    where = f'video {shown(video)}'
    if not isinstance(entries, list) or len(entries) != TOP:
        count = len(entries) if isinstance(entries, list) else shown(entries)
        issues.add('wrong number of labels', where, f'{count}, expected {TOP}')
        return
    labels, values = [], []
    for rank, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.keys() != {'label', 'score'}:
            issues.add(
                'bad label',
                f'{where}, rank {rank + 1}',
                f'{shown(entry)}, expected label and score',
            )
            return
        labels.append(entry['label'])
        values.append(entry['score'])
    for rank, label in enumerate(labels, 1):
        if not isinstance(label, str) or label not in names:
            hint = ' (a name, not an index)' if not isinstance(label, str) else ''
            issues.add(
                'unknown label', f'{where}, rank {rank}', f'{shown(label)} is no class{hint}'
            )
        elif label in labels[: rank - 1]:
            issues.add('label twice', f'{where}, rank {rank}', shown(label))
    for rank, value in enumerate(values, 1):
        if not is_number(value) or not 0 <= value <= 1:
            issues.add(
                'score out of range',
                f'{where}, rank {rank}',
                f'{shown(value)}, expected a number from 0 to 1',
            )
            return
    if values != sorted(values, reverse=True):
        issues.add('labels not sorted', where, f'scores {shown(values)}, expected the best first')
