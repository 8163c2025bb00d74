# SPDX-License-Identifier: Apache-2.0
"""Detection and instance segmentation: textured shapes in COCO's layout.

Each image holds one to four shapes over a greyish background. Nearer shapes hide farther ones;
a mask is what stays visible, and at least half of every shape does. Some images also hold a
crowd: a heap of small shapes of one class under a single ``iscrowd`` annotation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .coco import coco_file, to_box, to_polygons, to_run_lengths
from .sample import Task, write_jpeg, write_json
from .shapes import contour_area, coverage, paint, place
from .textures import background, random_texture, to_uint8

CLASSES = ('circle', 'square', 'triangle', 'star', 'ring')

FIRST_ID = {'train': 1, 'val': 500_001}
"""Image ids; the pose task counts from a million on, as both share the image folders."""

_SIZES = ((256, 192), (240, 180), (224, 224), (192, 256), (240, 192))
_RADII = (22.0, 64.0)
_MIN_INSIDE = 0.6
"""Share of a shape that lies within the image."""

_MAX_HIDDEN = 0.2
"""Share of what is visible of a shape that one newcomer may hide; three hide less than half."""

_CROWD_SHARE = 0.06


def write_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draws one image; the record holds its size and its annotations without ids."""
    width, height = _SIZES[rng.integers(len(_SIZES))]
    image = background(rng, height, width)
    layers: list[tuple[int, np.ndarray, bool]] = []
    if rng.uniform() < _CROWD_SHARE:
        layers.append(_draw_crowd(rng, image))
    for _ in range(rng.integers(1, 5)):
        _draw_shape(rng, image, layers)
    file_name = f'{FIRST_ID[split] + index:012d}.jpg'
    write_jpeg(root / 'coco' / f'{split}2017' / file_name, to_uint8(image))
    annotations = [_annotate(*layer) for layer in layers]
    return {'file_name': file_name, 'width': width, 'height': height, 'annotations': annotations}


def _typical_hue(category: int) -> float:
    """Classes differ in colour as well as in shape, so that minutes of training suffice."""
    return category / len(CLASSES)


def _draw_shape(
    rng: np.random.Generator, image: np.ndarray, layers: list[tuple[int, np.ndarray, bool]]
) -> None:
    """Adds a shape on top where enough of the others stays visible; gives up after 30 tries."""
    height, width = image.shape[:2]
    category = int(rng.integers(len(CLASSES)))
    radius = rng.uniform(*_RADII)
    angle = rng.uniform(0.0, 2 * np.pi)
    surface = random_texture(rng, height, width, hue=_typical_hue(category))
    for _ in range(30):
        centre = rng.uniform(0.35 * radius, np.array([width, height]) - 0.35 * radius)
        contours = place(CLASSES[category], tuple(centre), radius, angle)
        alpha = coverage(contours, height, width)
        mask = alpha >= 0.5
        inside = mask.sum() >= _MIN_INSIDE * contour_area(contours)
        radius = max(_RADII[0], 0.96 * radius)
        if inside and all(_stays_visible(layer, mask) for layer in layers):
            break
    else:
        return
    paint(image, alpha, surface)
    layers[:] = [(other, visible & ~mask, crowd) for other, visible, crowd in layers]
    layers.append((category, mask, False))


def _stays_visible(layer: tuple[int, np.ndarray, bool], mask: np.ndarray) -> bool:
    visible = layer[1]
    return np.count_nonzero(visible & mask) <= _MAX_HIDDEN * np.count_nonzero(visible)


def _draw_crowd(rng: np.random.Generator, image: np.ndarray) -> tuple[int, np.ndarray, bool]:
    height, width = image.shape[:2]
    category = int(rng.integers(len(CLASSES)))
    middle = rng.uniform((60, 50), (width - 60, height - 50))
    union = np.zeros((height, width), bool)
    for _ in range(rng.integers(8, 13)):
        centre = middle + rng.normal(0.0, (22.0, 14.0))
        contours = place(
            CLASSES[category], tuple(centre), rng.uniform(8.0, 11.0), rng.uniform(0, 2 * np.pi)
        )
        alpha = coverage(contours, height, width)
        paint(image, alpha, random_texture(rng, height, width, 'plain', hue=_typical_hue(category)))
        union |= alpha >= 0.5
    return category, union, True


def _annotate(category: int, mask: np.ndarray, crowd: bool) -> dict[str, Any]:
    return {
        'category_id': category + 1,
        'bbox': to_box(mask),
        'area': int(mask.sum()),
        'iscrowd': int(crowd),
        'segmentation': to_run_lengths(mask) if crowd else to_polygons(mask),
    }


def write_lists(root: Path, split: str, records: list[dict[str, Any]]) -> list[Path]:
    """Writes ``instances_{split}2017.json``."""
    categories = [
        {'id': i, 'name': name, 'supercategory': 'shape'} for i, name in enumerate(CLASSES, 1)
    ]
    content = coco_file('synthetic shapes', categories, records, FIRST_ID[split])
    return [write_json(root / 'coco' / 'annotations' / f'instances_{split}2017.json', content)]


TASK = Task(
    write_sample,
    write_lists,
    counts={'small': {'train': 240, 'val': 48}, 'tiny': {'train': 10, 'val': 6}},
    megabytes=6,
)
