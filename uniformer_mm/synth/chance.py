# SPDX-License-Identifier: Apache-2.0
"""What a predictor that never looks at a image would score on a data root.

The predictor may learn from the training annotations alone. Metrics carry the names and units of
the toolbox that evaluates the task, so that a number can be printed beside what a model reached.
Any data root of the same layout will do, not only the synthetic one.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .figure import SIGMAS
from .scene import CLASSES as SEG_CLASSES
from .scene import OTHER

CHANCE_RULES = {
    'det': 'in every image, the median box of each class, filled, scored by the class frequency',
    'pose': 'in every true box, the mean pose of the training boxes',
    'seg': 'the better of the best single class and the most frequent class at each place',
    'video': 'the most frequent class',
    'ssv2': 'the most frequent class',
    'cls': 'the most frequent class',
}
"""What ``chance_level`` predicts for each task."""


def chance_level(task: str, root: str | Path) -> dict[str, float]:
    """Scores of the predictor in ``CHANCE_RULES`` on the validation split.

    Args:
        task: A key of ``CHANCE_RULES``.
        root: Data root with that task's files.

    Returns:
        Metrics by name, in the unit of the task's toolbox: ``coco/{bbox,segm}_mAP``, ``_mAP_50``
        and ``_mAP_75`` for det; ``coco/AP``, ``coco/AP .5``, ``coco/AP .75``, ``coco/AR``,
        ``PCK@0.05`` and ``PCK@0.2`` for pose (all 0..1); ``mIoU``, ``mAcc`` and ``aAcc`` for seg
        (0..100); ``acc/top1``, ``acc/top5`` and ``acc/mean1`` for video and ssv2 (0..1);
        ``accuracy/top1`` and ``accuracy/top5`` for cls (0..100).

    Raises:
        ValueError: If the task is unknown or the root lacks its files.
    """
    if task not in _LEVELS:
        raise ValueError(f'task must be one of {", ".join(_LEVELS)}; got {task!r}')
    try:
        return _LEVELS[task](Path(root))
    except FileNotFoundError as error:
        raise ValueError(
            f'{root} has no data for task {task}: {error.filename} is missing; '
            f'write it with `uniformer-mm make-data {root} --tasks {task}`'
        ) from None


def _load(root: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    paths = [
        root / 'coco' / 'annotations' / f'{name}_{split}2017.json' for split in ('train', 'val')
    ]
    train, val = [json.loads(path.read_text()) for path in paths]
    return train, val


def _coco_stats(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> np.ndarray:
    """pycocotools' summary of results against an annotation dict."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        if kind == 'keypoints':
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def _detection(root: Path) -> dict[str, float]:
    train, val = _load(root, 'instances')
    sizes = {image['id']: (image['width'], image['height']) for image in train['images']}
    boxes: dict[int, list[np.ndarray]] = {}
    for annotation in train['annotations']:
        if not annotation['iscrowd']:
            relative = np.array(annotation['bbox']) / (2 * sizes[annotation['image_id']])
            boxes.setdefault(annotation['category_id'], []).append(relative)
    guesses = {category: np.median(known, axis=0) for category, known in boxes.items()}
    total = sum(map(len, boxes.values()))
    results = []
    for image in val['images']:
        for category, guess in guesses.items():
            x, y, w, h = guess * (2 * (image['width'], image['height']))
            results.append(
                {
                    'image_id': image['id'],
                    'category_id': category,
                    'bbox': [x, y, w, h],
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    'score': len(boxes[category]) / total,
                }
            )
    levels = {}
    for kind in ('bbox', 'segm'):
        # loadRes takes the first of bbox and segmentation that it finds.
        drop = 'segmentation' if kind == 'bbox' else 'bbox'
        only = [{k: v for k, v in result.items() if k != drop} for result in results]
        if kind == 'segm':
            only = _encode(only, val)
        stats = _coco_stats(val, only, kind)
        names = ('mAP', 'mAP_50', 'mAP_75')
        levels |= {f'coco/{kind}_{name}': float(stats[i]) for i, name in enumerate(names)}
    return levels


def _encode(results: list[dict[str, Any]], truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns polygons into the run lengths that ``loadRes`` wants."""
    from pycocotools import mask

    sizes = {image['id']: (image['height'], image['width']) for image in truth['images']}
    return [
        {**r, 'segmentation': mask.frPyObjects(r['segmentation'], *sizes[r['image_id']])[0]}
        for r in results
    ]


def _pose(root: Path) -> dict[str, float]:
    train, val = _load(root, 'person_keypoints')
    relative, seen = [], []
    for annotation in _people(train):
        joints, labelled, box = _joints(annotation)
        relative.append((joints - box[:2]) / box[2:])
        seen.append(labelled)
    weights = np.array(seen, float)[..., None]
    mean_pose = (np.array(relative) * weights).sum(0) / weights.sum(0)
    results, distances, masks = [], [], []
    for annotation in _people(val):
        joints, labelled, box = _joints(annotation)
        guess = box[:2] + mean_pose * box[2:]
        keypoints = np.concatenate([guess, np.ones((17, 1))], axis=1).ravel().tolist()
        results.append(
            {
                'image_id': annotation['image_id'],
                'category_id': 1,
                'keypoints': keypoints,
                'score': 1.0,
            }
        )
        distances.append(np.linalg.norm(guess - joints, axis=1) / box[2:].max())
        masks.append(labelled)
    stats = _coco_stats(val, results, 'keypoints')
    names = {'coco/AP': 0, 'coco/AP .5': 1, 'coco/AP .75': 2, 'coco/AR': 5}
    levels = {name: stats[i] for name, i in names.items()}
    for threshold in (0.05, 0.2):
        # As mmpose's PCKAccuracy: the mean over joints of the share of persons.
        hits = (np.array(distances) < threshold) & np.array(masks)
        levels[f'PCK@{threshold}'] = (hits.sum(0) / np.array(masks).sum(0)).mean()
    return {name: float(level) for name, level in levels.items()}


def _people(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in truth['annotations'] if a['num_keypoints'] and not a['iscrowd']]


def _joints(annotation: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keypoints = np.array(annotation['keypoints'], float).reshape(17, 3)
    return keypoints[:, :2], keypoints[:, 2] > 0, np.array(annotation['bbox'])


_GRID = (96, 128)
"""Rows and columns at which the label of each place is counted."""


def _segmentation(root: Path) -> dict[str, float]:
    folder = root / 'ade' / 'ADEChallengeData2016' / 'annotations'
    num_labels = 1 + len(SEG_CLASSES)
    votes = np.zeros((num_labels, *_GRID))
    for labels in _label_maps(folder / 'training'):
        small = cv2.resize(labels, _GRID[::-1], interpolation=cv2.INTER_NEAREST)
        votes += small == np.arange(num_labels)[:, None, None]
    votes[OTHER] = -1.0  # is not evaluated, so predicting it cannot be right
    guesses = [np.full(_GRID, label, np.uint8) for label in range(1, num_labels)]
    guesses.append(votes.argmax(0).astype(np.uint8))
    confusion = np.zeros((len(guesses), num_labels, num_labels))
    for labels in _label_maps(folder / 'validation'):
        for i, guess in enumerate(guesses):
            full = cv2.resize(guess, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
            pairs = labels.astype(int).ravel() * num_labels + full.ravel()
            counts = np.bincount(pairs, minlength=num_labels**2)
            confusion[i] += counts.reshape(num_labels, num_labels)
    return max((_iou_metrics(matrix[1:, 1:]) for matrix in confusion), key=lambda m: m['mIoU'])


def _label_maps(folder: Path) -> list[np.ndarray]:
    paths = sorted(folder.glob('*.png'))
    if not paths:
        raise FileNotFoundError(2, 'no label maps', str(folder / '*.png'))
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]


def _iou_metrics(confusion: np.ndarray) -> dict[str, float]:
    """mmseg's metrics from counts ``[true, predicted]``; absent classes do not count."""
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid='ignore'):
        iou, accuracy = right / (true + predicted - right), right / true
    levels = {
        'mIoU': np.nanmean(iou),
        'mAcc': np.nanmean(accuracy),
        'aAcc': right.sum() / true.sum(),
    }
    return {name: 100.0 * float(level) for name, level in levels.items()}


def _most_frequent(train: list[Any], val: list[Any]) -> dict[str, float]:
    """Shares of val (0..1) that the most frequent training labels cover."""
    ranked = sorted(set(train), key=lambda label: (-train.count(label), label))
    top = {k: sum(label in ranked[:k] for label in val) / len(val) for k in (1, 5)}
    return {'top1': top[1], 'top5': top[5], 'mean1': (ranked[0] in val) / len(set(val))}


def _clips(folder: str, name: str) -> Callable[[Path], dict[str, float]]:
    def level(root: Path) -> dict[str, float]:
        train, val = (
            [int(line.split()[-1]) for line in path.read_text().splitlines()]
            for path in (root / folder / name.format(split) for split in ('train', 'val'))
        )
        return {f'acc/{key}': share for key, share in _most_frequent(train, val).items()}

    return level


def _classification(root: Path) -> dict[str, float]:
    labels = []
    for split in ('train', 'val'):
        folder = root / 'imagenet' / split
        labels.append([path.parent.name for path in sorted(folder.glob('*/*.JPEG'))])
        if not labels[-1]:
            raise FileNotFoundError(2, 'no images', str(folder))
    shares = _most_frequent(*labels)
    return {f'accuracy/{key}': 100.0 * shares[key] for key in ('top1', 'top5')}


_LEVELS: dict[str, Callable[[Path], dict[str, float]]] = {
    'det': _detection,
    'pose': _pose,
    'seg': _segmentation,
    'video': _clips('kinetics400', 'kinetics400_{}_list_videos.txt'),
    'ssv2': _clips('sthv2', 'sthv2_{}_list_rawframes.txt'),
    'cls': _classification,
}
