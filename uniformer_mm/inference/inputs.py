# SPDX-License-Identifier: Apache-2.0
"""What a user points at: images, folders, patterns, clips, arrays, standard input, a camera."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from ..errors import UnreadableError

IMAGE_SUFFIXES = frozenset(
    f'.{name}'
    for name in (
        *('jpg', 'jpeg', 'jpe', 'jp2', 'png', 'bmp', 'webp', 'tif', 'tiff'),
        *('ppm', 'pgm', 'pbm', 'pnm'),
    )
)
CLIP_SUFFIXES = frozenset(
    f'.{name}'
    for name in (
        *('mp4', 'm4v', 'avi', 'mov', 'mkv', 'webm', 'mpg', 'mpeg', 'wmv', 'flv', '3gp', 'ts'),
        'ogv',
    )
)
STANDARD_INPUT = '-'

Input = str | PathLike | int | np.ndarray


@dataclass(frozen=True, eq=False)
class Source:
    """One thing to predict.

    Attributes:
        name: For messages, and for the files that are written.
        value: A path, a camera's number, an RGB array, or the bytes of an image file.
        is_clip: Whether it has frames.
    """

    name: str
    value: Path | int | np.ndarray | bytes
    is_clip: bool = False


def find_sources(inputs: Input | Sequence[Input]) -> Iterator[Source]:
    """Every single input that the user's inputs stand for, in order.

    Args:
        inputs: One or more of: path of an image or a clip; folder (its images and clips, sorted,
            without its folders); pattern such as ``photos/*.jpg``; number of a camera, as ``int``
            or ``'0'``; ``'-'`` (an image file on standard input); RGB array (H, W, 3), uint8, or
            (T, H, W, 3) as the frames of a clip.

    Yields:
        The sources. What is missing is yielded as well: reading it says so.

    Raises:
        ValueError: An array has another shape or type.
    """
    single = isinstance(inputs, str | PathLike | int | np.ndarray)
    for number, item in enumerate([inputs] if single else inputs):
        if isinstance(item, np.ndarray):
            yield _array_source(item, f'array_{number:03d}')
        elif isinstance(item, int):
            yield Source(f'camera_{item}', item, is_clip=True)
        elif item == STANDARD_INPUT:
            yield Source('standard_input', sys.stdin.buffer.read())
        else:
            yield from _path_sources(str(item))


def _array_source(array: np.ndarray, name: str) -> Source:
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise ValueError(
            f'an input array has shape {array.shape} and type {array.dtype}; give an RGB image '
            '(height, width, 3) or the frames of a clip (frames, height, width, 3), uint8.'
        )
    return Source(name, array, is_clip=array.ndim == 4)


def _path_sources(text: str) -> Iterator[Source]:
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    elif path.exists() or not (has_magic(text) or text.isdecimal()):
        files = [path]
    elif text.isdecimal():
        yield Source(f'camera_{text}', int(text), is_clip=True)
        return
    else:
        files = sorted(Path(file) for file in glob(str(path), recursive=True))
        files = [file for file in files if file.is_file()]
    # An empty folder or pattern is an input that cannot be read.
    for file in files or [path]:
        yield Source(file.name, file, is_clip=file.suffix.lower() in CLIP_SUFFIXES)


_SUFFIXES = IMAGE_SUFFIXES | CLIP_SUFFIXES


def read_image(source: Source) -> np.ndarray:
    """The image of a source that is no clip.

    Grey, palette, 16-bit, CMYK and transparent files become RGB; EXIF rotation is applied.

    Returns:
        RGB image, (H, W, 3), uint8.

    Raises:
        UnreadableError: It is missing, no image, or damaged.
    """
    value = source.value
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Path):
        if value.is_dir() or has_magic(str(value)):
            raise UnreadableError(f'{value}: no image and no clip is there.')
        try:
            value = value.read_bytes()
        except OSError as error:
            raise UnreadableError(f'{value}: {error.strerror}.') from None
    # Through memory: OpenCV's own reader fails on some names.
    image = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_COLOR) if value else None
    if image is None:
        what = 'it is empty' if not value else 'it is no image that OpenCV can decode'
        raise UnreadableError(
            f'{source.value if isinstance(source.value, Path) else source.name}: {what}.'
        )
    return np.ascontiguousarray(image[..., ::-1])
