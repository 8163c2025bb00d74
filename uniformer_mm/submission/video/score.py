# SPDX-License-Identifier: Apache-2.0
"""Top-1, top-5 and the challenge's mean error of videos, where the labels are public.

Source: Kinetics' ``eval_kinetics.py``: a video's error@k is 0 if its label is among the first k;
the challenge ranks by the mean of error@1 and error@5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from ..issues import Issues, shown
from ..official import read_videos
from ..reading import parse_json, read_bytes
from .kinetics import check_content, choose_order, label_names
from .predictions import VideoScores, read_video_scores
from .ssv2 import CLASSES as SSV2_CLASSES
from .ssv2 import read_ssv2

TOP = 5
_PERCENT = 100
# Below this top-1, another class order that is ten times better is the right one.
_SUSPICIOUS = 5.0
_MARGIN = 10


def score_kinetics(
    predictions: str | PathLike,
    annotations: str | PathLike,
    *,
    class_order: str | None = None,
    list_order: str | None = None,
    tested_list: str | PathLike | None = None,
    allow_missing: bool = False,
) -> tuple[dict[str, float], Issues]:
    """Score Kinetics predictions.

    Args:
        predictions: Saved scores (see :mod:`.video_scores`) or a leaderboard file.
        annotations: List of videos with class names (the csv and JSON files of Kinetics) or class
            indices (text lists).
        class_order: Order of the saved scores.
        list_order: Order of the list's class indices; that of the scores where None.
        tested_list: See :func:`.read_video_scores`.
        allow_missing: Score although listed videos have no prediction.

    Returns:
        ``top1``, ``top5``, ``mean_error`` in percent and ``videos``; notes.

    Raises:
        ValueError: Other videos, missing ones, another number of classes, or another order of
            classes than stated.
    """
    issues = Issues(str(predictions))
    truth = read_videos(annotations)
    content = _leaderboard_content(predictions)
    if content is not None:
        check_content(content, issues, official=None)
        issues.refuse('Nothing was scored.')
        issues.notes.clear()
        best = {
            video: [entry['label'] for entry in entries]
            for video, entries in content['results'].items()
        }
        names = _truth_names(truth, list_order, annotations)
        return _accuracies(best, names, issues, allow_missing=allow_missing), issues
    scores = read_video_scores(predictions, order_file=tested_list)
    order = choose_order(scores.class_order, class_order, scores.source)
    scores.require_classes(len(label_names(order)), order.partition('_')[0])
    list_order = list_order or order
    names = _truth_names(truth, list_order, annotations)
    metrics = _accuracies(_best(scores, order), names, issues, allow_missing=allow_missing)
    _refuse_other_order(scores, order, list_order, names, metrics['top1'])
    issues.note(f'classes in the order {order}')
    return metrics, issues


def score_ssv2(
    predictions: str | PathLike,
    annotations: str | PathLike,
    *,
    label_file: str | PathLike | None = None,
    tested_list: str | PathLike | None = None,
    allow_missing: bool = False,
) -> tuple[dict[str, float], Issues]:
    """Score Something-Something V2 predictions.

    Args:
        predictions: Saved scores or a leaderboard csv file.
        annotations: ``test-answers.csv`` (``id;template``), a JSON file of the data set, or a text
            list with class indices.
        label_file: ``labels.json``, which numbers the templates; needed where ``annotations`` has
            templates.
        tested_list: See :func:`.read_video_scores`.
        allow_missing: Score although listed videos have no prediction.

    Returns:
        ``top1``, ``top5``, ``mean_error`` in percent and ``videos``; notes.

    Raises:
        ValueError: Other videos, missing ones, another number of classes, or an unknown template.
    """
    issues = Issues(str(predictions))
    truth = _class_indices(read_videos(annotations), label_file, annotations)
    if Path(predictions).suffix.lower() == '.csv':
        best: Mapping[str, Sequence] = read_ssv2(predictions, issues)
        issues.refuse('Nothing was scored.')
    else:
        scores = read_video_scores(predictions, order_file=tested_list)
        scores.require_classes(SSV2_CLASSES, 'Something-Something V2')
        best = dict(zip(scores.ids, scores.top(TOP).tolist(), strict=True))
    return _accuracies(best, truth, issues, allow_missing=allow_missing), issues


def _accuracies(
    best: Mapping[str, Sequence], truth: Mapping, issues: Issues, *, allow_missing: bool
) -> dict[str, float]:
    foreign = [video for video in best if video not in truth]
    if foreign:
        raise ValueError(
            f'{issues.file}: {len(foreign):,} of {len(best):,} videos are not in the list of '
            f'{len(truth):,}, the first is {shown(foreign[0])}.'
        )
    missing = [video for video in truth if video not in best]
    if missing and not allow_missing:
        raise ValueError(
            f'{issues.file}: {len(missing):,} of {len(truth):,} listed videos have no '
            f'prediction, the first is {shown(missing[0])}; pass --allow-missing to score the rest.'
        )
    first = sum(truth[video] == classes[0] for video, classes in best.items())
    among = sum(truth[video] in classes[:TOP] for video, classes in best.items())
    top1, top5 = (count / len(best) * _PERCENT for count in (first, among))
    if missing:
        issues.note(
            f'{len(missing):,} of {len(truth):,} videos are missing and left out; counted as '
            f'wrong: top-1 {first / len(truth) * _PERCENT:.2f}, '
            f'top-5 {among / len(truth) * _PERCENT:.2f}'
        )
    return {
        'top1': top1,
        'top5': top5,
        'mean_error': _PERCENT - (top1 + top5) / 2,
        'videos': float(len(best)),
    }


def _best(scores: VideoScores, order: str) -> dict[str, list[str]]:
    names = label_names(order)
    return {
        video: [names[c] for c in best]
        for video, best in zip(scores.ids, scores.top(TOP), strict=True)
    }


def _refuse_other_order(
    scores: VideoScores, order: str, list_order: str, truth: Mapping[str, str], top1: float
) -> None:
    """Raise if the scores are evidently in the data set's other class order."""
    if top1 >= _SUSPICIOUS:
        return
    data_set, _, kind = order.partition('_')
    other = f'{data_set}_{"official" if kind == "alphabetical" else "alphabetical"}'
    best = _best(scores, other)
    hits = sum(truth[video] == classes[0] for video, classes in best.items())
    value = hits / len(best) * _PERCENT
    if value > _MARGIN * max(top1, _PERCENT / len(label_names(order))):
        raise ValueError(
            f'{scores.source}: top-1 is {top1:.2f} if the classes are in the order {order}, but '
            f'{value:.2f} in the order {other}; pass --class-order {other} --list-order '
            f'{list_order}.'
        )


def _truth_names(
    truth: Mapping[str, str | None], order: str | None, source: str | PathLike
) -> dict[str, str]:
    """Class name of each listed video."""
    found = {}
    names = label_names(order) if order else None
    known = frozenset(names or ())
    for video, label in truth.items():
        if label is None:
            raise ValueError(f'{source}: video {shown(video)} has no label.')
        if label not in known and label.isdecimal():
            if names is None:
                raise ValueError(
                    f'{source}: its labels are class indices; say in which order: --list-order.'
                )
            if int(label) >= len(names):
                raise ValueError(
                    f'{source}: video {shown(video)} has label {label}, {order} has {len(names)} '
                    'classes.'
                )
            label = names[int(label)]
        elif names is not None and label not in known:
            raise ValueError(
                f'{source}: video {shown(video)} has label {shown(label)}, which is no class of '
                f'{order.partition("_")[0]}.'
            )
        found[video] = label
    return found


def _class_indices(
    truth: Mapping[str, str | None], label_file: str | PathLike | None, source: str | PathLike
) -> dict[str, int]:
    """Class index of each listed video."""
    indices = _read_labels(label_file) if label_file is not None else {}
    found = {}
    for video, label in truth.items():
        if label is None:
            raise ValueError(f'{source}: video {shown(video)} has no label.')
        index = int(label) if label.isdecimal() else indices.get(_plain(label))
        if index is None and label_file is None:
            raise ValueError(f'{source}: has templates; pass labels.json with --labels.')
        if index is None or index >= SSV2_CLASSES:
            raise ValueError(
                f'{source}: video {shown(video)} has label {shown(label)}, which is none of the '
                f'{SSV2_CLASSES} classes.'
            )
        found[video] = index
    return found


def _read_labels(path: str | PathLike) -> dict[str, int]:
    """Class index by template, from ``labels.json`` (``{"template": "0", ...}``)."""
    content = parse_json(read_bytes(path), str(path))
    try:
        found = {_plain(name): int(index) for name, index in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: expected {{"template": "index", ...}} ({error}).') from error
    if sorted(found.values()) != list(range(SSV2_CLASSES)):
        raise ValueError(f'{path}: {len(found)} labels, expected {SSV2_CLASSES}, numbered from 0.')
    return found


def _plain(template: str) -> str:
    """A template as ``labels.json`` writes it: the JSON files of the splits have brackets."""
    return template.replace('[', '').replace(']', '')


def _leaderboard_content(path: str | PathLike) -> dict | None:
    """The JSON value if a file is a leaderboard file, None if it holds scores."""
    if Path(path).suffix.lower() != '.json':
        return None
    content = parse_json(read_bytes(path), str(path))
    return content if isinstance(content, dict) and 'results' in content else None
