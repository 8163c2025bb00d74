# SPDX-License-Identifier: Apache-2.0
"""Samples as small images: photos, strips of frames, label maps, boxes and skeletons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE = 360
FRAMES = 4
TRUTH, GUESS = (60, 160, 40), (40, 60, 220)
_GAP = 4
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def load(path: Path) -> np.ndarray:
    """An image (BGR), or a grey square that stands for one that cannot be read."""
    image = cv2.imread(str(path))
    return image if image is not None else np.full((SIDE // 2, SIDE, 3), 230, np.uint8)


def jpeg(image: np.ndarray, side: int = SIDE) -> bytes:
    """The image as JPEG, its longer side at most ``side`` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()


def frame_strip(path: Path) -> np.ndarray:
    """Some frames of a video file or a folder of frames, side by side in their order."""
    frames = _folder_frames(path) if path.is_dir() else _video_frames(path)
    if not frames:
        return load(path)
    height = min(frame.shape[0] for frame in frames)
    frames = [
        cv2.resize(frame, (round(frame.shape[1] * height / frame.shape[0]), height))
        for frame in frames
    ]
    return beside(frames)


def _folder_frames(path: Path) -> list[np.ndarray]:
    files = sorted(file for file in path.iterdir() if file.suffix in ('.jpg', '.png'))
    return [load(files[i]) for i in _spread(len(files))]


def _video_frames(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    wanted = set(_spread(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))
    frames, index = [], 0
    while len(frames) < len(wanted):
        ok, frame = capture.read()
        if not ok:
            break
        if index in wanted:
            frames.append(frame)
        index += 1
    capture.release()
    return frames


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, FRAMES).astype(int))) if count > 0 else []


def beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images of one height side by side with a gap."""
    gap = np.full((images[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)][:-1]
    return np.concatenate(parts, axis=1)


def palette(classes: int) -> np.ndarray:
    """Well separated colours ``(K, 3)``, the same for every report."""
    hues = (np.arange(classes) * 0.61803398875) % 1
    hsv = np.stack([hues * 179, 120 + 100 * (np.arange(classes) % 2), np.full(classes, 230)], 1)
    return cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2BGR)[0]


def label_map(image: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Label colours over the photo; labels beyond the classes stay grey."""
    colours = np.concatenate([palette(classes), np.full((256 - classes, 3), 128, np.uint8)])
    if labels.shape != image.shape[:2]:
        labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(image, 0.35, colours[labels].astype(np.uint8), 0.65, 0)


def shrunk(image: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The image at most ``width`` wide, and the scale of x, y and a score (which stays)."""
    scale = min(1.0, width / image.shape[1])
    if scale < 1:
        size = (width, max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, np.array([scale, scale, 1.0])


def draw_boxes(
    image: np.ndarray, boxes: Iterable[tuple[Sequence[float], str]], colour: tuple
) -> np.ndarray:
    """Boxes (x, y, width, height in pixels) with words, on a copy."""
    image = image.copy()
    for (x, y, width, height), words in boxes:
        left, top = round(x), round(y)
        cv2.rectangle(image, (left, top), (round(x + width), round(y + height)), colour, 2)
        (long, high), _ = cv2.getTextSize(words, _FONT, _FONT_SCALE, 1)
        base = max(top, high + 4)
        cv2.rectangle(image, (left, base - high - 4), (left + long + 4, base), colour, -1)
        place = (left + 2, base - 3)
        cv2.putText(image, words, place, _FONT, _FONT_SCALE, (255,) * 3, 1, cv2.LINE_AA)
    return image


def draw_joints(
    image: np.ndarray,
    people: Iterable[np.ndarray],
    bones: Sequence[Sequence[int]],
    colour: tuple,
    threshold: float,
) -> np.ndarray:
    """Skeletons on a copy.

    Args:
        image: BGR.
        people: ``(joints, 3)`` arrays of x, y and score or visibility.
        bones: Pairs of joints, counted from 1 as COCO does.
        colour: Of the bones.
        threshold: Joints at or below are left out.
    """
    image = image.copy()
    for joints in people:
        for first, second in bones:
            ends = joints[[first - 1, second - 1]]
            if (ends[:, 2] > threshold).all():
                start, end = (tuple(round(float(v)) for v in place[:2]) for place in ends)
                cv2.line(image, start, end, colour, 2, cv2.LINE_AA)
        for x, y, score in joints:
            if score > threshold:
                cv2.circle(image, (round(float(x)), round(float(y))), 3, colour, -1, cv2.LINE_AA)
    return image
