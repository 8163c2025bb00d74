# SPDX-License-Identifier: Apache-2.0
"""The part of a report about detections and keypoints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..metrics.intervals import ResampledAP
from ..record import Record
from ..running.store import Stored
from . import images, page, plots
from .classify import SHOWN_ROWS

SHOWN_IMAGES = 6
SHOWN_SCORE = 0.3
_JOINT_SCORE = 0.2
_WIDTH = 540
_TITLES = {'bbox_mAP': 'Boxes', 'segm_mAP': 'Masks', 'AP': 'Keypoints'}


def sections(
    record: Record, stored: Sequence[Stored], evaluations: Mapping[str, Any]
) -> list[Markup]:
    """Precision-recall curves, categories, worst and best images.

    Args:
        record: The test's record.
        stored: Its samples.
        evaluations: See :func:`~uniformer_mm.evaluation.running.analysis.coco_evaluations`.
    """
    found = [
        page.section(_TITLES[name], _curves(name, evaluation))
        for name, evaluation in evaluations.items()
    ]
    if not found:
        return [page.section('Predictions', page.note('The network found nothing.'))]
    name, evaluation = next(iter(evaluations.items()))
    paths = _image_paths(stored)
    scores = image_scores(evaluation)
    ranked = sorted((score, image) for image, score in scores.items() if image in paths)
    shown = min(SHOWN_IMAGES, -(-len(ranked) // 2))
    measure = 'OKS' if name == 'AP' else 'IoU'
    for title, chosen in (('Worst', ranked), ('Best', ranked[shown:][::-1])):
        figures = [
            _picture(evaluation, image, score, paths[image]) for score, image in chosen[:shown]
        ]
        words = page.note(
            f'Truth left, prediction right (scores above {SHOWN_SCORE}); F1 of '
            f'{_TITLES[name].lower()} at {measure} 0.5.'
            if figures
            else 'There are no other images.'
        )
        found.append(page.section(f'{title} images', words, page.gallery(figures, wide=True)))
    return found


def _curves(name: str, evaluation: Any) -> Markup:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]
    curves = {}
    for threshold in (0.5, 0.75, 0.9):
        index = int(np.argmin(np.abs(evaluation.params.iouThrs - threshold)))
        valid = precision[index][:, (precision[index] > -1).all(axis=0)]
        curves[f'IoU {threshold:.2f}' if name != 'AP' else f'OKS {threshold:.2f}'] = (
            valid.mean(axis=1) if valid.size else np.zeros(len(evaluation.params.recThrs))
        )
    figure = plots.precision_recall(
        evaluation.params.recThrs, curves, 'mean over categories' if name != 'AP' else 'persons'
    )
    rows = []
    for index, category in enumerate(evaluation.params.catIds):
        entries = precision[:, :, index]
        if (entries > -1).any():
            truths = len(evaluation.cocoGt.getAnnIds(evaluation.params.imgIds, int(category)))
            title = evaluation.cocoGt.loadCats(int(category))[0]['name']
            values = [100 * entries.mean(), 100 * entries[0].mean(), 100 * entries[5].mean()]
            rows.append((title, truths, *(f'{value:.1f}' for value in values)))
    rows.sort(key=lambda row: (-float(row[2]), row[0]))
    headings = ('category', 'annotated', 'AP', 'AP50', 'AP75')
    height = max(SHOWN_ROWS, -(-len(rows) // 3))
    tables = [page.table(headings, rows[i : i + height]) for i in range(0, len(rows), height)]
    ap = ResampledAP(evaluation).value()
    drawn = page.image(figure, f'AP {ap:.1f} %', kind='png')
    if len(tables) == 1:
        return page.columns(drawn, *tables)
    return Markup(page.columns(drawn) + page.columns(*tables))


def image_scores(evaluation: Any) -> dict[int, float]:
    """F1 (0..1) of each image at the first threshold, of detections above ``SHOWN_SCORE``.

    Images without annotations and detections are left out.
    """
    right: dict[int, int] = {}
    total: dict[int, int] = {}
    areas = len(evaluation.params.areaRng)
    images = len(evaluation.params.imgIds)
    for category in range(len(evaluation.params.catIds)):
        start = category * areas * images
        for entry in evaluation.evalImgs[start : start + images]:
            if entry is None:
                continue
            counted = np.asarray(entry['dtScores']) > SHOWN_SCORE
            counted &= entry['dtIgnore'][0] == 0
            hits = int((counted & (entry['dtMatches'][0] > 0)).sum())
            truths = int((np.asarray(entry['gtIgnore']) == 0).sum())
            image = entry['image_id']
            right[image] = right.get(image, 0) + 2 * hits
            total[image] = total.get(image, 0) + int(counted.sum()) + truths
    return {image: right[image] / count for image, count in total.items() if count}


def _image_paths(stored: Sequence[Stored]) -> dict[int, Path]:
    paths = {}
    for sample in stored:
        for part in sample.results[0]:
            if isinstance(part, dict) and 'img_id' in part:
                paths[part['img_id']] = Path(sample.path)
    return paths


def _picture(evaluation: Any, image: int, score: float, path: Path) -> Markup:
    photo, scale = images.shrunk(images.load(path), _WIDTH)
    truth_api, guess_api = evaluation.cocoGt, evaluation.cocoDt
    truths = truth_api.loadAnns(truth_api.getAnnIds([image]))
    guesses = [
        guess
        for guess in guess_api.loadAnns(guess_api.getAnnIds([image]))
        if guess['score'] > SHOWN_SCORE
    ]
    if evaluation.params.iouType == 'keypoints':
        bones = truth_api.loadCats(truth_api.getCatIds())[0].get('skeleton', [])
        drawn = [
            images.draw_joints(
                photo, [scale * _joints(person) for person in people], bones, colour, threshold
            )
            for people, colour, threshold in (
                (truths, images.TRUTH, 0),
                (guesses, images.GUESS, _JOINT_SCORE),
            )
        ]
    else:
        names = {c['id']: c['name'] for c in truth_api.loadCats(truth_api.getCatIds())}
        drawn = [
            images.draw_boxes(
                photo,
                [(scale[0] * np.array(item['bbox']), _box_text(item, names)) for item in items],
                colour,
            )
            for items, colour in ((truths, images.TRUTH), (guesses, images.GUESS))
        ]
    strip = images.jpeg(images.beside(drawn), 2 * _WIDTH + 10)
    words = f'{path.name}: F1 {score:.2f}, {len(truths)} annotated, {len(guesses)} found'
    return page.image(strip, words)


def _joints(person: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(person['keypoints'], float).reshape(-1, 3)


def _box_text(item: Mapping[str, Any], names: Mapping[int, str]) -> str:
    name = names[item['category_id']]
    return f'{name} {item["score"]:.2f}' if 'score' in item else name
