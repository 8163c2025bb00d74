# SPDX-License-Identifier: Apache-2.0
"""Human pose: stick figures in the layout of COCO keypoints, and person boxes for validation.

Visibility flags mean what they do in COCO: 2 is seen; 1 is labelled but hidden, behind the own
body, another figure or an occluder; 0 is absent: outside the image, or hidden and not labelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .coco import coco_file, to_box, to_polygons
from .figure import KEYPOINTS, SKELETON, Figure, draw, move, random_figure
from .sample import Task, write_jpeg, write_json
from .shapes import coverage, paint, place
from .textures import background, random_texture, to_uint8

FIRST_ID = {'train': 1_000_001, 'val': 1_500_001}

DETECTIONS_FILE = 'COCO_val2017_detections_AP_H_56_person.json'
"""The name that every COCO pose config of OpenMMLab uses."""

_SIZES = ((256, 256), (288, 224), (224, 288), (256, 208))
_HEIGHTS = (130.0, 200.0)
_SECOND_FIGURE_SHARE = 0.3
_CUT_SHARE = 0.15
_OCCLUDER_SHARE = 0.35
_UNLABELLED_SHARE = 0.35
_MIN_INSIDE = 11


def write_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draws one image; the record holds its annotations and, for val, detected boxes."""
    width, height = _SIZES[rng.integers(len(_SIZES))]
    image = background(rng, height, width)
    people: list[dict[str, Any]] = []
    for _ in range(1 + (rng.uniform() < _SECOND_FIGURE_SHARE)):
        figure = _find_place(rng, width, height, people)
        if figure is not None:
            mask, visible = draw(rng, image, figure)
            for other in people:
                _hide(other, mask)
            people.append({'figure': figure, 'mask': mask, 'visible': visible})
    if people and rng.uniform() < _OCCLUDER_SHARE:
        _draw_occluder(rng, image, people)
    annotations = [_annotate(rng, person) for person in people]
    file_name = f'{FIRST_ID[split] + index:012d}.jpg'
    write_jpeg(root / 'coco' / f'{split}2017' / file_name, to_uint8(image))
    record = {'file_name': file_name, 'width': width, 'height': height, 'annotations': annotations}
    record['detections'] = _detect(rng, width, height, annotations)
    return record


def _find_place(
    rng: np.random.Generator, width: int, height: int, people: list[dict[str, Any]]
) -> Figure | None:
    """A figure that is off the others, whole or cut by the image's edge; None if none fits."""
    size = np.array([width, height])
    cut = rng.uniform() < _CUT_SHARE
    for _ in range(60):
        figure = random_figure(rng, rng.uniform(*_HEIGHTS) * (0.7 if people else 1.0))
        low, high = figure.joints.min(0), figure.joints.max(0)
        margin = (0.1 if cut else 0.25) * size
        centre = rng.uniform(margin, size - margin)
        figure = move(figure, centre - (low + high) / 2)
        inside = _inside(figure.joints, width, height).sum()
        fits = _MIN_INSIDE <= inside < 17 if cut else inside == 17
        if fits and all(_overlap(figure.joints, other['figure'].joints) < 0.15 for other in people):
            return figure
    return None


def _inside(points: np.ndarray, width: int, height: int) -> np.ndarray:
    return ((points >= 0) & (points <= (width - 1, height - 1))).all(1)


def _overlap(joints: np.ndarray, others: np.ndarray) -> float:
    """Intersection of the boxes around two sets of joints, as a share of the smaller box."""
    low = np.maximum(joints.min(0), others.min(0))
    high = np.minimum(joints.max(0), others.max(0))
    areas = [np.prod(points.max(0) - points.min(0)) for points in (joints, others)]
    return float(np.prod(np.maximum(high - low, 0)) / min(areas))


def _hide(person: dict[str, Any], cover: np.ndarray) -> None:
    """Takes what ``cover`` hides out of a person's mask and visible joints."""
    height, width = cover.shape
    person['mask'] = person['mask'] & ~cover
    joints = person['figure'].joints
    x, y = np.floor(joints + 0.5).astype(int).clip(0, (width - 1, height - 1)).T
    person['visible'] = person['visible'] & ~(cover[y, x] & _inside(joints, width, height))


def _draw_occluder(
    rng: np.random.Generator, image: np.ndarray, people: list[dict[str, Any]]
) -> None:
    """Paints a small shape over one or two joints of the first person."""
    height, width = image.shape[:2]
    joints = people[0]['figure'].joints
    shape = ('square', 'circle', 'triangle')[rng.integers(3)]
    centre = joints[rng.integers(5, 17)] + rng.uniform(-6.0, 6.0, 2)
    contours = place(shape, tuple(centre), rng.uniform(14.0, 24.0), rng.uniform(0, 2 * np.pi))
    alpha = coverage(contours, height, width)
    paint(image, alpha, random_texture(rng, height, width))
    for person in people:
        _hide(person, alpha >= 0.5)


def _annotate(rng: np.random.Generator, person: dict[str, Any]) -> dict[str, Any]:
    mask, figure = person['mask'], person['figure']
    height, width = mask.shape
    inside = _inside(figure.joints, width, height)
    labelled = inside & (person['visible'] | (rng.uniform(size=17) >= _UNLABELLED_SHARE))
    flags = np.where(labelled, np.where(person['visible'], 2, 1), 0)
    keypoints: list[float] = []
    for (x, y), flag in zip(figure.joints, flags, strict=True):
        keypoints += [round(float(x), 1), round(float(y), 1), int(flag)] if flag else [0, 0, 0]
    return {
        'category_id': 1,
        'bbox': to_box(mask),
        'area': int(mask.sum()),
        'iscrowd': 0,
        'segmentation': to_polygons(mask),
        'num_keypoints': int((flags > 0).sum()),
        'keypoints': keypoints,
    }


def _detect(
    rng: np.random.Generator, width: int, height: int, annotations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What a good person detector might report: jittered boxes, and now and then a false one."""
    detections = []
    for annotation in annotations:
        x, y, w, h = annotation['bbox']
        noise = rng.normal(0.0, 0.03, 4).clip(-0.08, 0.08) * (w, h, w, h)
        box = _clip_box(np.array([x, y, x + w, y + h]) + noise, width, height)
        detections.append({'bbox': box, 'score': round(float(rng.uniform(0.8, 0.999)), 3)})
    if rng.uniform() < 0.3:
        x, y = rng.uniform(0.0, 0.6, 2) * (width, height)
        w, h = rng.uniform(0.2, 0.4, 2) * (width, height)
        box = _clip_box(np.array([x, y, x + w, y + h]), width, height)
        detections.append({'bbox': box, 'score': round(float(rng.uniform(0.05, 0.3)), 3)})
    return detections


def _clip_box(corners: np.ndarray, width: int, height: int) -> list[float]:
    x0, y0, x1, y1 = corners.clip(0, (width, height, width, height))
    return [round(float(value), 2) for value in (x0, y0, x1 - x0, y1 - y0)]


def write_lists(root: Path, split: str, records: list[dict[str, Any]]) -> list[Path]:
    """Writes ``person_keypoints_{split}2017.json`` and, for val, the detected boxes."""
    person = {'id': 1, 'name': 'person', 'supercategory': 'person'}
    person |= {'keypoints': list(KEYPOINTS), 'skeleton': [list(pair) for pair in SKELETON]}
    content = coco_file('synthetic stick figures', [person], records, FIRST_ID[split])
    folder = root / 'coco'
    paths = [write_json(folder / 'annotations' / f'person_keypoints_{split}2017.json', content)]
    if split == 'val':
        detections = [
            {'image_id': image_id, 'category_id': 1, **detection}
            for image_id, record in enumerate(records, FIRST_ID[split])
            for detection in record['detections']
        ]
        path = folder / 'person_detection_results' / DETECTIONS_FILE
        paths.append(write_json(path, detections))
    return paths


TASK = Task(
    write_sample,
    write_lists,
    counts={'small': {'train': 300, 'val': 60}, 'tiny': {'train': 8, 'val': 6}},
    megabytes=9,
)
