# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation: rooms and streets in ADE20K's layout.

The classes are the first seven of ADE20K, under their own names and indices, because mmseg maps
labels by name: ``ADE20KDataset`` then reads these files with its 150 classes as well as with
``metainfo=dict(classes=CLASSES)``. Toys that lie about belong to none of them (label 0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .sample import Task, write_jpeg, write_png, write_text
from .shapes import coverage, paint, place
from .textures import hsv_to_bgr, random_texture, smooth_noise, texture, to_uint8

CLASSES = ('wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road')
OTHER = 0

_SIZES = ((224, 160), (208, 160), (240, 176), (192, 160))
_FOLDERS = {'train': 'training', 'val': 'validation'}


class _Scene:
    """A image and its labels, painted from far to near."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width, self.height = _SIZES[rng.integers(len(_SIZES))]
        self.image = np.zeros((self.height, self.width, 3), np.float32)
        self.labels = np.zeros((self.height, self.width), np.uint8)

    def add(self, name: str | None, contours: list[np.ndarray], surface: np.ndarray) -> None:
        """Paints a region; ``None`` is none of the classes."""
        alpha = coverage(contours, self.height, self.width)
        paint(self.image, alpha, surface)
        self.labels[alpha >= 0.5] = OTHER if name is None else 1 + CLASSES.index(name)

    def colour(
        self, hue: float, saturation: float, value: float, spread: float = 0.1
    ) -> np.ndarray:
        """A colour near the given one."""
        rng = self.rng
        return hsv_to_bgr(
            hue + rng.uniform(-0.04, 0.04),
            np.clip(saturation + rng.uniform(-spread, spread), 0, 1),
            np.clip(value + rng.uniform(-spread, spread), 0, 1),
        )

    def surface(self, kind: str, colour: np.ndarray, contrast: float, period: float, angle: float):
        """A texture of one colour and a darker shade of it."""
        colours = (colour, colour * (1.0 - contrast))
        phase = (self.rng.uniform(), self.rng.uniform())
        return texture(kind, self.height, self.width, colours, period, angle, phase)

    def cloudy(self, colour: np.ndarray, cell: int, amplitude: float) -> np.ndarray:
        """A colour with smooth noise."""
        noise = smooth_noise(self.rng, self.height, self.width, cell)
        return colour + amplitude * noise[..., None]


def _box(x0: float, y0: float, x1: float, y1: float) -> list[np.ndarray]:
    # Pixel centres are integers: half a pixel around them belongs to the box.
    return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) - 0.5]


def _street(scene: _Scene) -> None:
    rng, width, height = scene.rng, scene.width, scene.height
    horizon = height * rng.uniform(0.6, 0.75)
    blue = scene.colour(0.57, 0.4, 0.9)
    scene.add('sky', _box(0, 0, width, height), scene.cloudy(blue, 32, 22.0))
    x = rng.uniform(-40, 10)
    while x < width:
        w = rng.uniform(35, 70)
        if rng.uniform() < 0.75:
            top = horizon - rng.uniform(0.25, 0.55) * height
            wall = scene.colour(rng.uniform(0.0, 0.12), 0.4, 0.6)
            windows = scene.surface('checkered', wall, 0.6, rng.uniform(10, 15), 0.0)
            scene.add('building', _box(x, top, x + w, height), windows)
        x += w + rng.uniform(0, 25)
    asphalt = scene.cloudy(scene.colour(0.6, 0.05, 0.3, 0.05), 4, 8.0)
    scene.add('road', _box(0, horizon, width, height), asphalt)
    middle = horizon + 0.5 * (height - horizon)
    for dash in np.arange(rng.uniform(-20, 0), width, 36):
        _mark(scene, _box(dash, middle - 2, dash + 16, middle + 2))
    for _ in range(rng.integers(1, 4)):
        _tree(scene, rng.uniform(0, width), horizon + rng.uniform(0, 10))


def _mark(scene: _Scene, contours: list[np.ndarray]) -> None:
    """Lane paint: part of the road."""
    scene.add('road', contours, np.array([200.0, 220.0, 220.0]))


def _tree(scene: _Scene, x: float, y: float) -> None:
    rng = scene.rng
    size = rng.uniform(45, 75)
    trunk = scene.colour(0.07, 0.55, 0.35)
    scene.add('tree', _box(x - 4, y - 0.6 * size, x + 4, y), trunk)
    leaves = scene.cloudy(scene.colour(0.3, 0.65, 0.5), 5, 40.0)
    for _ in range(5):
        centre = (x + rng.normal(0, 0.18 * size), y - 0.75 * size + rng.normal(0, 0.15 * size))
        scene.add('tree', place('circle', centre, 0.28 * size, 0.0), leaves)


def _room(scene: _Scene) -> None:
    rng, width, height = scene.rng, scene.width, scene.height
    top, bottom = height * rng.uniform(0.15, 0.28), height * rng.uniform(0.62, 0.78)
    inset = width * rng.uniform(0.08, 0.2)
    paper = scene.surface('striped', scene.colour(rng.uniform(), 0.25, 0.75), 0.2, 14.0, 0.0)
    scene.add('wall', _box(0, 0, width, height), paper)
    plaster = scene.cloudy(scene.colour(0.12, 0.05, 0.95, 0.04), 20, 5.0)
    corners = [[0, 0], [width, 0], [width - inset, top], [inset, top]]
    scene.add('ceiling', [np.array(corners) - 0.5], plaster)
    brown = scene.colour(0.07, 0.55, 0.55)
    kind, angle = ('checkered', 0.3) if rng.uniform() < 0.5 else ('striped', 1.2)
    planks = scene.surface(kind, brown, 0.35, rng.uniform(10, 16), angle)
    corners = [[inset, bottom], [width - inset, bottom], [width, height], [0, height]]
    scene.add('floor', [np.array(corners) - 0.5], planks)


def _toys(scene: _Scene) -> None:
    rng = scene.rng
    for _ in range(rng.integers(0, 3)):
        shape = ('circle', 'star', 'square')[rng.integers(3)]
        centre = (rng.uniform(0, scene.width), rng.uniform(0.6, 0.95) * scene.height)
        contours = place(shape, centre, rng.uniform(10, 20), rng.uniform(0, 2 * np.pi))
        scene.add(None, contours, random_texture(rng, scene.height, scene.width))


def write_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> list[int]:
    """Draws one scene; the record counts the pixels of each label, ``OTHER`` first."""
    scene = _Scene(rng)
    (_street, _room)[index % 2](scene)
    _toys(scene)
    folder = root / 'ade' / 'ADEChallengeData2016'
    name = f'ADE_{split}_{index + 1:08d}'
    write_jpeg(folder / 'images' / _FOLDERS[split] / f'{name}.jpg', to_uint8(scene.image))
    write_png(folder / 'annotations' / _FOLDERS[split] / f'{name}.png', scene.labels)
    return np.bincount(scene.labels.ravel(), minlength=1 + len(CLASSES)).tolist()


def write_lists(root: Path, split: str, records: list[list[int]]) -> list[Path]:
    """Writes ``objectInfo150.txt``: share of pixels, images per split, and name of each class.

    The shares and both image counts come from the training split, the only one ADE20K's own
    table was made from; the validation split adds nothing.
    """
    if split != 'train':
        return []
    pixels = np.array(records)
    ratios = pixels.sum(0)[1:] / pixels.sum()
    images = (pixels > 0).sum(0)[1:]
    lines = ['Idx\tRatio\tTrain\tName']
    lines += [
        f'{i}\t{ratio:.4f}\t{count}\t{name}'
        for i, (ratio, count, name) in enumerate(zip(ratios, images, CLASSES, strict=True), 1)
    ]
    path = root / 'ade' / 'ADEChallengeData2016' / 'objectInfo150.txt'
    return [write_text(path, lines)]


TASK = Task(
    write_sample,
    write_lists,
    counts={'small': {'train': 160, 'val': 32}, 'tiny': {'train': 8, 'val': 6}},
    megabytes=5,
)
