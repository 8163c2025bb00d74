# SPDX-License-Identifier: Apache-2.0
"""Image classification: one textured shape per image, in ImageNet's folders."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from .sample import Task, write_jpeg
from .shapes import coverage, paint, place
from .textures import background, random_texture, to_uint8

_TEXTURES = ('checkered', 'dotted', 'striped')
_SHAPES = ('circle', 'cross', 'triangle')

CLASSES = tuple(f'{texture}_{shape}' for texture, shape in product(_TEXTURES, _SHAPES))
"""In alphabetical order, in which toolboxes number folders."""

_SIDES = (96, 112, 128)


def write_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> str:
    """Draws one image; the record is its path below the split, which names its class."""
    name = CLASSES[index % len(CLASSES)]
    texture, shape = name.split('_')
    width, height = _SIDES[rng.integers(len(_SIDES))], _SIDES[rng.integers(len(_SIDES))]
    image = background(rng, height, width)
    radius = rng.uniform(0.32, 0.46) * min(width, height)
    centre = rng.uniform(0.8 * radius, np.array([width, height]) - 0.8 * radius)
    alpha = coverage(place(shape, tuple(centre), radius, rng.uniform(0, 2 * np.pi)), height, width)
    # Shapes differ in colour as well, so that minutes of training suffice.
    hue = _SHAPES.index(shape) / len(_SHAPES)
    paint(image, alpha, random_texture(rng, height, width, texture, hue=hue))
    relative = f'{name}/{name}_{index:05d}.JPEG'
    write_jpeg(root / 'imagenet' / split / relative, to_uint8(image))
    return relative


def write_lists(root: Path, split: str, records: list[str]) -> list[Path]:
    """ImageNet's folders need no list: there is nothing to write."""
    return []


TASK = Task(
    write_sample,
    write_lists,
    counts={'small': {'train': 603, 'val': 162}, 'tiny': {'train': 18, 'val': 18}},
    megabytes=6,
)
