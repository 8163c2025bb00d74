# SPDX-License-Identifier: Apache-2.0
"""Chance levels, each recomputed by other means than the code's."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from uniformer_mm.synth import CHANCE_RULES, TASKS, chance_level


def test_every_task_has_a_rule(world: Path) -> None:
    assert set(CHANCE_RULES) == set(TASKS)
    for task in TASKS:
        levels = chance_level(task, world)
        assert levels and all(np.isfinite(level) for level in levels.values())


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task must be one of det.*got 'depth'"):
        chance_level('depth', tmp_path)
    for task in TASKS:
        with pytest.raises(ValueError, match=rf'no data for task {task}: .*--tasks {task}'):
            chance_level(task, tmp_path)


def _average_precision(hits: list[bool], num_truths: int) -> float:
    """COCO's: the best precision at or beyond each of 101 recalls."""
    recall = np.cumsum(hits) / num_truths
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    points = [precision[recall >= r - 1e-12] for r in np.linspace(0, 1, 101)]
    return float(np.mean([p.max() if len(p) else 0.0 for p in points]))


def _shapes(root: Path, split: str) -> tuple[dict[int, dict], list[dict]]:
    content = json.loads(
        (root / 'coco' / 'annotations' / f'instances_{split}2017.json').read_text()
    )
    images = {image['id']: image for image in content['images']}
    # Crowds are ignored regions; without them the matching below is the whole rule.
    return images, [a for a in content['annotations'] if not a['iscrowd']]


def test_detection(world: Path, tmp_path: Path) -> None:
    """Box AP50 of each class by hand, on a copy of the data without crowds."""
    for split in ('train', 'val'):
        images, annotations = _shapes(world, split)
        path = tmp_path / 'coco' / 'annotations' / f'instances_{split}2017.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        categories = [{'id': i, 'name': str(i)} for i in range(1, 6)]
        content = {'images': [*images.values()], 'annotations': annotations}
        path.write_text(json.dumps(content | {'categories': categories}))
    images, train = _shapes(world, 'train')
    val_images, val = _shapes(world, 'val')
    scores = []
    for category in sorted({a['category_id'] for a in val}):
        relative = []
        for annotation in train:
            if annotation['category_id'] == category:
                image = images[annotation['image_id']]
                x, y, w, h = annotation['bbox']
                relative.append(
                    (
                        x / image['width'],
                        y / image['height'],
                        w / image['width'],
                        h / image['height'],
                    )
                )
        truths = [a for a in val if a['category_id'] == category]
        if not relative:
            scores.append(0.0)
            continue
        guess = np.median(relative, axis=0)
        hits = []
        for image in val_images.values():
            x, y, w, h = guess * ([image['width'], image['height']] * 2)
            overlaps = [0.0]
            for annotation in truths:
                if annotation['image_id'] == image['id']:
                    a, b, c, d = annotation['bbox']
                    wide = max(0.0, min(x + w, a + c) - max(x, a))
                    high = max(0.0, min(y + h, b + d) - max(y, b))
                    overlaps.append(wide * high / (w * h + c * d - wide * high))
            hits.append(max(overlaps) >= 0.5)
        scores.append(_average_precision(hits, len(truths)))
    assert chance_level('det', tmp_path)['coco/bbox_mAP_50'] == pytest.approx(np.mean(scores))


def test_pose(world: Path) -> None:
    """PCK and keypoint AP50 person by person."""
    people = {}
    for split in ('train', 'val'):
        path = world / 'coco' / 'annotations' / f'person_keypoints_{split}2017.json'
        people[split] = json.loads(path.read_text())['annotations']
    mean = np.zeros((17, 2))
    for joint in range(17):
        places = []
        for person in people['train']:
            x, y, flag = person['keypoints'][3 * joint : 3 * joint + 3]
            left, top, width, height = person['bbox']
            if flag:
                places.append(((x - left) / width, (y - top) / height))
        mean[joint] = np.mean(places, axis=0)
    sigmas = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
    right, seen, similarities = np.zeros((2, 17)), np.zeros(17), []
    for person in people['val']:
        left, top, width, height = person['bbox']
        similarity = []
        for joint in range(17):
            x, y, flag = person['keypoints'][3 * joint : 3 * joint + 3]
            if not flag:
                continue
            dx, dy = left + mean[joint, 0] * width - x, top + mean[joint, 1] * height - y
            seen[joint] += 1
            for i, threshold in enumerate((0.05, 0.2)):
                right[i, joint] += np.hypot(dx, dy) / max(width, height) < threshold
            variance = (2 * sigmas[joint]) ** 2
            similarity.append(np.exp(-(dx**2 + dy**2) / (2 * person['area'] * variance)))
        similarities.append(np.mean(similarity))
    levels = chance_level('pose', world)
    assert levels['PCK@0.05'] == pytest.approx(np.mean(right[0] / seen))
    assert levels['PCK@0.2'] == pytest.approx(np.mean(right[1] / seen))
    # Equal scores: results stand in the order of the annotations.
    hits = [similarity >= 0.5 for similarity in similarities]
    assert levels['coco/AP .5'] == pytest.approx(_average_precision(hits, len(hits)), abs=1e-6)


def _labels(root: Path, folder: str) -> list[np.ndarray]:
    folder = root / 'ade' / 'ADEChallengeData2016' / 'annotations' / folder
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]


def _mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    ious = []
    for label in range(1, 8):
        both = sum(((t == label) & (p == label) & (t > 0)).sum() for t, p in pairs)
        either = sum((((t == label) | (p == label)) & (t > 0)).sum() for t, p in pairs)
        if either:
            ious.append(both / either)
    return 100 * float(np.mean(ious))


def test_segmentation(world: Path) -> None:
    val = _labels(world, 'validation')
    constant = max(
        _mean_iou([(truth, np.full_like(truth, label)) for truth in val]) for label in range(1, 8)
    )
    # The most frequent class of each place, place by place.
    grid = np.stack(
        [
            cv2.resize(t, (128, 96), interpolation=cv2.INTER_NEAREST)
            for t in _labels(world, 'training')
        ]
    )
    prior = np.zeros(grid.shape[1:], np.uint8)
    for row, column in product(range(96), range(128)):
        votes = Counter(int(v) for v in grid[:, row, column] if v)
        prior[row, column] = min(votes, key=lambda label: (-votes[label], label))
    by_place = _mean_iou(
        [(t, cv2.resize(prior, t.shape[::-1], interpolation=cv2.INTER_NEAREST)) for t in val]
    )
    levels = chance_level('seg', world)
    assert levels['mIoU'] == pytest.approx(max(constant, by_place))
    assert by_place > constant


@pytest.mark.parametrize('task', ['video', 'ssv2'])
def test_clips(task: str, tmp_path: Path) -> None:
    """A train list that is not balanced: 7 2 1 of three labels, and val 1 3 4 of them."""
    folder, name, clip = {
        'video': ('kinetics400', 'kinetics400_{}_list_videos.txt', 'a/b.mp4 {}\n'),
        'ssv2': ('sthv2', 'sthv2_{}_list_rawframes.txt', '17 30 {}\n'),
    }[task]
    (tmp_path / folder).mkdir()
    for split, counts in (('train', (7, 2, 1)), ('val', (1, 3, 4))):
        lines = [clip.format(label) * n for label, n in enumerate(counts)]
        (tmp_path / folder / name.format(split)).write_text(''.join(lines))
    assert chance_level(task, tmp_path) == {
        'acc/top1': 1 / 8,
        'acc/top5': 1.0,
        'acc/mean1': pytest.approx(1 / 3),
    }


def test_classification(world: Path) -> None:
    levels = chance_level('cls', world)
    assert levels == {
        'accuracy/top1': pytest.approx(100 / 9),
        'accuracy/top5': pytest.approx(500 / 9),
    }
