# SPDX-License-Identifier: Apache-2.0
"""What a prediction is, for each task: arrays, names and scores that can be drawn and saved."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import replacing
from .clips import ClipWriter, frame_rate, read_frames, spread_frames
from .drawing import (
    Color,
    distinct_colors,
    draw_bars,
    draw_instances,
    draw_label_map,
    draw_skeletons,
    side_by_side,
)

DRAWN_SCORE = 0.3
"""Objects and keypoints with lower scores are saved, but not drawn."""


@dataclass(eq=False, kw_only=True)
class Result(ABC):
    """The prediction for one image, one frame or one clip.

    Attributes:
        name: Name of the file; a frame has its number behind ``#``.
        image: RGB image, (H, W, 3), uint8; of a clip, its middle frame.
    """

    name: str
    image: np.ndarray = field(repr=False)

    @abstractmethod
    def draw(self) -> np.ndarray:
        """The prediction on the image; RGB, uint8. Small images are enlarged."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything but the image, in types that JSON knows."""

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the drawn prediction as an image file, whole or not at all.

        Args:
            path: A name with the suffix of an image format that Pillow knows.

        Returns:
            The path.

        Raises:
            ValueError: The suffix is not known, or the folder cannot be written.
        """
        path = Path(path)
        kind = Image.registered_extensions().get(path.suffix.lower())
        if kind is None:
            raise ValueError(f'path={str(path)!r}: give a name that ends in .png or .jpg.')
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open('wb') as file:
            Image.fromarray(self.draw()).save(file, kind, quality=92)
            file.flush()
            os.fsync(file.fileno())
        return path

    def show(self) -> None:
        """Open the drawn prediction in the desktop's viewer; in a notebook just name the result."""
        Image.fromarray(self.draw()).show(self.name)

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        Image.fromarray(self.draw()).save(file, 'PNG')
        return file.getvalue()

    def _image_entry(self) -> dict[str, Any]:
        height, width = self.image.shape[:2]
        return {'file_name': self.name, 'width': width, 'height': height}


@dataclass(eq=False, kw_only=True)
class Detections(Result):
    """Objects, the most certain first.

    Attributes:
        boxes: Corners x0, y0, x1, y1 in pixels, (N, 4), float.
        scores: (N,), 0 to 1.
        labels: Class numbers, (N,), from 0.
        classes: Names of all classes.
        masks: (N, H, W), boolean, or None.
        colors: A colour for each class.
        drawn_score: Objects with a lower score are not drawn.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    masks: np.ndarray | None = field(default=None, repr=False)
    colors: Sequence[Color] = field(default=(), repr=False)
    drawn_score: float = field(default=DRAWN_SCORE, repr=False)

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.classes[label] for label in self.labels]

    def draw(self, with_scores: bool = True) -> np.ndarray:
        """Boxes, masks and names of the objects with a score of at least ``drawn_score``."""
        kept = np.flatnonzero(self.scores >= self.drawn_score)
        colors = self.colors or distinct_colors(len(self.classes))
        texts = [
            f'{self.classes[self.labels[i]]} {self.scores[i]:.0%}' if with_scores
            else self.classes[self.labels[i]]
            for i in kept
        ]  # fmt: skip
        return draw_instances(
            self.image,
            self.boxes[kept],
            texts,
            [colors[self.labels[i]] for i in kept],
            None if self.masks is None else self.masks[kept],
        )

    def to_dict(self) -> dict[str, Any]:
        """The image and its ``annotations`` in COCO's fields; masks as compressed run lengths.

        ``category_id`` counts from 1.
        """
        annotations = []
        for index, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            entry = {
                'category_id': int(self.labels[index]) + 1,
                'bbox': [x0, y0, x1 - x0, y1 - y0],
                'area': (x1 - x0) * (y1 - y0),
                'iscrowd': 0,
                'score': float(self.scores[index]),
            }
            if self.masks is not None:
                entry['segmentation'] = run_lengths(self.masks[index])
                entry['area'] = int(self.masks[index].sum())
            annotations.append(entry)
        return {**self._image_entry(), 'annotations': annotations}


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A boolean mask as COCO's compressed run lengths, with text for JSON."""
    from pycocotools.mask import encode

    coded = encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': list(coded['size']), 'counts': coded['counts'].decode('ascii')}


@dataclass(eq=False, kw_only=True)
class LabelMap(Result):
    """A class for each pixel.

    Attributes:
        labels: (H, W), class numbers from 0; other numbers mean nothing.
        classes: Names of all classes.
        colors: A colour for each class.
    """

    labels: np.ndarray = field(repr=False)
    classes: Sequence[str]
    colors: Sequence[Color] = field(default=(), repr=False)

    def draw(self, legend: bool = True) -> np.ndarray:
        """The coloured map over the image, with a legend of what it holds."""
        colors = self.colors or distinct_colors(len(self.classes))
        return draw_label_map(self.image, self.labels, self.classes, colors, legend)

    def to_dict(self) -> dict[str, Any]:
        """Size, and the share of the image that each class covers."""
        present, counts = np.unique(self.labels, return_counts=True)
        shares = {
            self.classes[i]: float(count / self.labels.size)
            for i, count in zip(present, counts, strict=True)
            if 0 <= i < len(self.classes)
        }
        return {**self._image_entry(), 'shares': shares}

    def save_labels(self, path: str | os.PathLike) -> Path:
        """Write the map itself as a PNG of one channel, 8 bits, 16 if there are more classes."""
        path = Path(path)
        kind = np.uint8 if len(self.classes) <= 255 else np.uint16
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open('wb') as file:
            Image.fromarray(self.labels.astype(kind)).save(file, 'PNG')
            file.flush()
            os.fsync(file.fileno())
        return path


@dataclass(eq=False, kw_only=True)
class Poses(Result):
    """Persons (or other figures) with their keypoints.

    Attributes:
        keypoints: x and y in pixels, (N, K, 2).
        keypoint_scores: (N, K), 0 to 1.
        boxes: The boxes that they were looked for in, corners, (N, 4).
        box_scores: (N,).
        keypoint_names: K names.
        links: Pairs of keypoints that a skeleton joins.
        point_colors: A colour for each keypoint.
        link_colors: A colour for each link.
        drawn_score: Keypoints with a lower score are not drawn.
    """

    keypoints: np.ndarray = field(repr=False)
    keypoint_scores: np.ndarray = field(repr=False)
    boxes: np.ndarray
    box_scores: np.ndarray
    keypoint_names: Sequence[str] = field(default=(), repr=False)
    links: Sequence[tuple[int, int]] = field(default=(), repr=False)
    point_colors: Sequence[Color] = field(default=(), repr=False)
    link_colors: Sequence[Color] = field(default=(), repr=False)
    drawn_score: float = field(default=DRAWN_SCORE, repr=False)

    def draw(self, with_boxes: bool = True) -> np.ndarray:
        """The skeletons, without keypoints whose score is less than ``drawn_score``."""
        return draw_skeletons(
            self.image,
            self.keypoints,
            self.keypoint_scores >= self.drawn_score,
            self.links,
            self.point_colors or distinct_colors(self.keypoints.shape[1]),
            self.link_colors or distinct_colors(len(self.links)),
            self.boxes if with_boxes else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The image and its ``annotations`` in COCO's fields: x, y, score for each keypoint.

        ``score`` is the box's score times the mean score of the keypoints.
        """
        annotations = []
        for index, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            scores = self.keypoint_scores[index]
            joined = np.concatenate([self.keypoints[index], scores[:, None]], axis=1)
            annotations.append(
                {
                    'category_id': 1,
                    'bbox': [x0, y0, x1 - x0, y1 - y0],
                    'area': (x1 - x0) * (y1 - y0),
                    'iscrowd': 0,
                    'keypoints': joined.ravel().tolist(),
                    'num_keypoints': int((scores >= DRAWN_SCORE).sum()),
                    'score': float(self.box_scores[index] * scores.mean()),
                }
            )
        return {**self._image_entry(), 'annotations': annotations}


@dataclass(eq=False, kw_only=True)
class Classification(Result):
    """Probabilities of an image or a clip.

    Attributes:
        probabilities: (C,), they sum to 1.
        classes: Names of all classes.
        clip: The file, or the frames (T, H, W, 3), if it is a clip.
        truth: The true class, where it is known; it is marked when drawn.
    """

    probabilities: np.ndarray = field(repr=False)
    classes: Sequence[str] = field(repr=False)
    clip: Path | np.ndarray | None = field(default=None, repr=False)
    truth: int | None = None

    @property
    def label(self) -> int:
        """Number of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def class_name(self) -> str:
        """Its name."""
        return self.classes[self.label]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities."""
        best = np.argsort(-self.probabilities, kind='stable')[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in best]

    def draw(self, top: int = 5) -> np.ndarray:
        """Bars of the most probable classes below the image, or below four frames of the clip."""
        image = self.image
        if self.clip is not None:
            image = side_by_side(
                spread_frames(self.clip, 4) if isinstance(self.clip, Path)
                else [self.clip[i] for i in np.linspace(0, len(self.clip) - 1, 4).astype(int)],
                gap=4,
            )  # fmt: skip
        return draw_bars(image, self.probabilities, self.classes, top, self.truth)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the image, or, for a clip under a name that ends in ``.mp4``, the whole clip."""
        path = Path(path)
        if self.clip is None or path.suffix.lower() != '.mp4':
            return super().save(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        from_file = isinstance(self.clip, Path)
        with ClipWriter(path, *([frame_rate(self.clip)] if from_file else [])) as film:
            for frame in read_frames(self.clip) if from_file else self.clip:
                film.write(draw_bars(frame, self.probabilities, self.classes, 5, self.truth))
        return path

    def to_dict(self) -> dict[str, Any]:
        """Class, and the probabilities of all classes in their order."""
        return {
            **self._image_entry(),
            'label': self.label,
            'class': self.class_name,
            'probability': float(self.probabilities[self.label]),
            'probabilities': self.probabilities.astype(float).tolist(),
        }
