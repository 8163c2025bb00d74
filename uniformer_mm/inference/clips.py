# SPDX-License-Identifier: Apache-2.0
"""Frames of clips and cameras, and mp4 files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..errors import UnreadableError
from ..files import replacing

USUAL_RATE = 25.0
"""Frames per second of a clip that does not say."""


def read_frames(source: Path | int) -> Iterator[np.ndarray]:
    """The frames of a clip, or of a camera until it ends, one at a time.

    Args:
        source: A file, or the number of a camera.

    Yields:
        RGB images, (H, W, 3), uint8, upright.

    Raises:
        UnreadableError: It holds no frame that OpenCV can decode.
    """
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    found = False
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            found = True
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()
    if not found:
        name = f'camera {source}' if isinstance(source, int) else source
        raise UnreadableError(f'{name}: no frame could be read from it.')


def spread_frames(path: Path, count: int) -> list[np.ndarray]:
    """``count`` frames (or all, if there are fewer) spread evenly over a clip.

    Raises:
        UnreadableError: It holds no frame that OpenCV can decode.
    """
    capture, total = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        total += 1
    capture.release()
    wanted = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    if count == 1:
        wanted = [total // 2]
    return [frame for index, frame in enumerate(read_frames(path)) if index in wanted]


def frame_rate(source: Path | int) -> float:
    """Frames per second, :data:`USUAL_RATE` where they are not stated."""
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return rate if 1 <= rate <= 1000 else USUAL_RATE


class ClipWriter:
    """An mp4 file that appears when it is complete; nothing is left of one that fails.

    All frames get the size of the first, which is cut to even numbers of pixels as codecs want.

    Args:
        path: The file.
        rate: Frames per second.
    """

    def __init__(self, path: Path, rate: float = USUAL_RATE) -> None:
        self.path = path
        self._rate = rate
        self._replacing = replacing(path)
        self._unfinished = self._film = None
        self._target: Path | None = None

    def __enter__(self) -> ClipWriter:
        self._target = self._replacing.__enter__()
        # OpenCV chooses the container by the suffix.
        self._unfinished = self._target.with_name(f'{self._target.name}.mp4')
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add an RGB frame.

        Raises:
            ValueError: OpenCV cannot write the file.
        """
        if self._film is None:
            self._size = (frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2)
            codec = cv2.VideoWriter.fourcc(*'mp4v')
            self._film = cv2.VideoWriter(str(self._unfinished), codec, self._rate, self._size)
            if not self._film.isOpened():
                raise ValueError(f'{self.path}: OpenCV cannot write an mp4 file of {self._size}.')
        width, height = self._size
        if frame.shape[0] < height or frame.shape[1] < width:
            frame = cv2.resize(frame, self._size)
        self._film.write(np.ascontiguousarray(frame[:height, :width, ::-1]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._film is not None:
            self._film.release()
        empty = None
        if kind is None and self._film is not None:
            with self._unfinished.open('rb') as file:
                os.fsync(file.fileno())
            os.replace(self._unfinished, self._target)
        elif kind is None:
            empty = error = ValueError(f'{self.path}: no frame was written.')
            kind = ValueError
        self._unfinished.unlink(missing_ok=True)
        self._replacing.__exit__(kind, error, trace)
        if empty is not None:
            raise empty
