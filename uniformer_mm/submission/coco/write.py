# SPDX-License-Identifier: Apache-2.0
"""COCO result files: boxes, masks, keypoints.

Source of the format: cocodataset.org, "Results format" and "Upload results". Coordinates are
rounded as recommended there, boxes to 0.1 pixels and keypoints to whole ones; scores are not.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path, PurePath

from ...files import prepare, require_plain, write_zip
from ..issues import Issues
from ..official import CocoImages
from ..reading import is_number, open_members, parse_json, read_bytes
from .check import FILE_TYPES, KEYPOINTS, REPEATED, check_entries, check_name, guess_task

DECIMALS = {'coco-det': 1, 'coco-segm': 1, 'coco-keypoints': 0}


def archive_name(task: str, test_set: str, algorithm: str) -> str:
    """``[type]_[testset]_[alg]_results``, the name that the upload page asks for.

    Raises:
        ValueError: An algorithm's name with characters that separate the parts.
    """
    require_plain(algorithm, underscore=False)
    return f'{FILE_TYPES[task]}_{test_set}_{algorithm}_results'


def read_entries(path: str | PathLike) -> tuple[object, str]:
    """The list of results in a JSON file, or in the only JSON file of an archive.

    Returns:
        The JSON value, unchecked, and the name of the JSON file.

    Raises:
        ValueError: Unreadable, or an archive of another layout.
    """
    path = Path(path)
    if path.suffix.lower() != '.zip':
        return parse_json(read_bytes(path), str(path)), path.name
    members = open_members(path)
    found = [name for name in members.names if name.lower().endswith('.json')]
    if len(found) != 1:
        raise ValueError(f'{path}: {len(found)} JSON files, expected one ({members.names[:5]}).')
    return parse_json(members.read(found[0]), f'{path}: {found[0]}'), found[0]


def check_coco(
    path: str | PathLike, issues: Issues, *, task: str | None, images: CocoImages | None
) -> str:
    """Check a JSON file or archive: layout, names, every entry.

    Args:
        path: File to check.
        issues: Where issues go.
        task: What it holds; None to see from the first entry.
        images: The official list, if it is at hand.

    Returns:
        The task.

    Raises:
        ValueError: Unreadable, or no COCO results.
    """
    path = Path(path)
    entries, name = read_entries(path)
    task = task or guess_task(entries, path.name)
    if task is None:
        raise ValueError(
            f'{path}: the first entry holds neither bbox nor segmentation nor keypoints; these are '
            'no COCO results (or say what they are: --task).'
        )
    check_name(path.name, task, issues)
    if path.suffix.lower() == '.zip':
        names = open_members(path).names
        if PurePath(name).parent != PurePath('.') or PurePath(name).stem != path.stem:
            issues.add(
                'wrong archive layout',
                '',
                f'member {name!r}, expected {path.stem}.json at the root',
            )
        for other in names:
            if other != name:
                issues.add('wrong archive layout', '', f'member {other!r} does not belong there')
    check_entries(entries, task, images, issues)
    return task


def write_coco(
    predictions: str | PathLike,
    task: str,
    images: CocoImages,
    folder: str | PathLike,
    *,
    algorithm: str,
    test_set: str = 'test-dev2017',
    decimals: int | None = None,
    overwrite: bool = False,
) -> tuple[Path, Issues]:
    """Write the archive of a leaderboard entry.

    Args:
        predictions: JSON results, such as mmdet's ``P.bbox.json`` and ``P.segm.json`` or mmpose's
            ``P.keypoints.json``.
        task: ``'coco-det'``, ``'coco-segm'`` or ``'coco-keypoints'``.
        images: The official list.
        folder: Where to write.
        algorithm: Name of the entry.
        test_set: Test set, as file names say it.
        decimals: Digits kept of coordinates; 1 for boxes, 0 for keypoints where None.
        overwrite: Replace an existing archive.

    Returns:
        The archive, and notes on it.

    Raises:
        ValueError: Predictions that no server could score, or output that cannot be written.
    """
    stem = archive_name(task, test_set, algorithm)
    target = prepare(Path(folder) / f'{stem}.zip', overwrite=overwrite)
    entries, _ = read_entries(predictions)
    entries = convert_entries(entries, task, DECIMALS[task] if decimals is None else decimals)
    issues = Issues(str(predictions))
    check_entries(entries, task, images, issues)
    repeated = issues.kinds.pop(REPEATED, None)
    issues.refuse('Nothing was written.')
    if repeated:
        entries = list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())
        issues.note(f'{repeated.count:,} results were there twice and are written once')
    if task == 'coco-det':
        flat = sum(1 for entry in entries if 0 in entry['bbox'][2:])
        if flat:
            issues.note(f'{flat:,} boxes have no area and can match nothing')
    content = json.dumps(entries, separators=(',', ':'), allow_nan=False).encode()
    write_zip(target, [(f'{stem}.json', content)], compress=True)
    return target, issues


def convert_entries(entries: object, task: str, decimals: int | None) -> object:
    """Results with the keys and digits of a submission; anything unexpected stays as it is.

    Args:
        entries: JSON value of a file of results.
        task: What they are.
        decimals: Digits kept of coordinates; all where None.
    """
    if not isinstance(entries, list):
        return entries
    convert = _CONVERT[task]
    return [convert(entry, decimals) if isinstance(entry, dict) else entry for entry in entries]


def _convert_box(entry: dict, digits: int | None) -> dict:
    kept = {key: entry[key] for key in ('image_id', 'category_id', 'bbox', 'score') if key in entry}
    box = kept.get('bbox')
    if isinstance(box, list) and all(map(is_number, box)):
        kept['bbox'] = [_rounded(value, digits) for value in box]
    return kept


def _convert_mask(entry: dict, digits: int | None) -> dict:
    keys = ('image_id', 'category_id', 'segmentation', 'score')
    kept = {key: entry[key] for key in keys if key in entry}
    mask = kept.get('segmentation')
    if isinstance(mask, dict):
        kept['segmentation'] = {key: mask[key] for key in ('size', 'counts') if key in mask}
    return kept


def _convert_keypoints(entry: dict, digits: int | None) -> dict:
    keys = ('image_id', 'category_id', 'keypoints', 'score')
    kept = {key: entry[key] for key in keys if key in entry}
    points = kept.get('keypoints')
    # mmpose keeps each joint's confidence in the third place, which the format reserves for v.
    if isinstance(points, list) and len(points) == 3 * KEYPOINTS and all(map(is_number, points)):
        kept['keypoints'] = [
            1 if index % 3 == 2 else _rounded(value, digits) for index, value in enumerate(points)
        ]
    return kept


def _rounded(value: float, digits: int | None) -> float | int:
    if digits is None:
        return value
    # Adding zero turns -0.0 into 0.0.
    return round(value, digits) + 0.0 if digits else round(value)


_CONVERT = {
    'coco-det': _convert_box,
    'coco-segm': _convert_mask,
    'coco-keypoints': _convert_keypoints,
}
