# SPDX-License-Identifier: Apache-2.0
"""What the stored results say beyond the metrics: intervals, and labels in the wrong order."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ...labels import permutation
from ..metrics.confusion import image_confusion
from ..metrics.intervals import (
    AP_SAMPLES,
    BOOTSTRAP_SAMPLES,
    Interval,
    ResampledAP,
    mean_iou_interval,
    wilson,
)
from ..record import Record
from .data_lists import ORDERS
from .protocol import annotation_files
from .store import PredictionStore

_SUSPICIOUS_GAIN = 10.0
_COCO_RUNS = {
    'bbox_mAP': ('bbox', 'predictions.bbox.json'),
    'segm_mAP': ('segm', 'predictions.segm.json'),
    'AP': ('keypoints', 'predictions.keypoints.json'),
}


def subset_intervals(
    folder: Path, record: Record, config: Config
) -> tuple[dict[str, Interval], str]:
    """95 % intervals of a subset's metrics, and how they were computed.

    Args:
        folder: Folder of the test.
        record: Its record so far.
        config: Its configuration.
    """
    if record.task in ('cls', 'video'):
        found = {
            name: wilson(round(value * record.samples / 100), record.samples)
            for name, value in record.metrics.items()
            if name.startswith('top')
        }
        return found, "Wilson's score interval over files"
    if record.task == 'seg':
        name = next(name for name in ('mIoU', 'mIoU_ms') if name in record.metrics)
        areas = label_areas(folder, len(record.classes))
        words = f'bootstrap over images, {BOOTSTRAP_SAMPLES} samples'
        return ({name: mean_iou_interval(*areas)} if areas else {}), words
    found = {}
    for name, evaluation in coco_evaluations(folder, record, config).items():
        found[name] = ResampledAP(evaluation).interval()
    return found, f'bootstrap over images, {AP_SAMPLES} samples'


def label_areas(folder: Path, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Right, true and predicted pixels of each image and class; None for stock metrics."""
    hits, true, guessed = [], [], []
    for stored in PredictionStore(folder).read():
        result = stored.results[0]
        if not isinstance(result, dict):
            return None
        confusion = image_confusion(result, classes)
        hits.append(np.diagonal(confusion))
        true.append(confusion.sum(1))
        guessed.append(confusion.sum(0))
    return np.array(hits), np.array(true), np.array(guessed)


def coco_evaluations(folder: Path, record: Record, config: Config) -> dict[str, Any]:
    """pycocotools' COCOeval, evaluated, for each metric that left predictions in the folder."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = sorted(tested_images(folder))
    found = {}
    for name, (kind, file) in _COCO_RUNS.items():
        path = folder / file
        if not path.is_file() or name not in record.metrics:
            continue
        predictions = json.loads(path.read_text(encoding='utf-8'))
        if not predictions:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotation_files(config)[0]))
            if kind == 'segm':
                # With a box in the entry, pycocotools takes the box's area for the mask's.
                predictions = [{k: v for k, v in p.items() if k != 'bbox'} for p in predictions]
            evaluation = COCOeval(truth, truth.loadRes(predictions), kind)
            if record.limit is not None:
                evaluation.params.imgIds = images
            names = set(record.classes)
            if kind != 'keypoints' and names:
                categories = truth.loadCats(truth.getCatIds())
                wanted = [c['id'] for c in categories if c['name'] in names]
                evaluation.params.catIds = sorted(wanted)
            evaluation.evaluate()
        found[name] = evaluation
    return found


def tested_images(folder: Path) -> set[int]:
    """Ids of the images that a detection or pose test stored results of."""
    found = set()
    for stored in PredictionStore(folder).read():
        found.update(
            part['img_id'] for part in stored.results[0]
            if isinstance(part, dict) and 'img_id' in part
        )  # fmt: skip
    return found


def suspect_order(folder: Path, record: Record, order: str | None) -> str:
    """A sentence if the other order of Kinetics classes would explain the labels far better."""
    if order is None:
        return ''
    logits, labels = [], []
    for stored in PredictionStore(folder).read():
        result = stored.results[0]
        if 'logits' not in result:
            return ''
        logits.append(result['logits'].mean(0))
        labels.append(result['label'])
    guesses, labels = np.argmax(np.stack(logits), axis=1), np.array(labels)
    dataset, _, _ = order.rpartition('_')
    as_is = 100 * np.mean(guesses == labels)
    for source in ORDERS:
        for target in ORDERS:
            if source == target:
                continue
            # Row r of the head stands for class number place[r] of the list, if it was in `source`
            # order and the list in `target` order.
            rows = permutation(f'{dataset}_{source}', f'{dataset}_{target}')
            place = np.argsort(rows)
            other = 100 * np.mean(place[guesses] == labels)
            if other >= as_is + _SUSPICIOUS_GAIN:
                return (
                    f'class order mismatch: top-1 would be {other:.1f} instead of {as_is:.1f} if '
                    f'the classifier was {source} and the labels {target}; say so with '
                    '--class-order or convert the weights (uniformer-mm convert --class-order)'
                )
    return ''
