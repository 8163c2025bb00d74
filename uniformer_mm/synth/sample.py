# SPDX-License-Identifier: Apache-2.0
"""What every task of the synthetic world shares: a sample's random stream and its file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SPLITS = ('train', 'val')

_JPEG_QUALITY = 88


@dataclass(frozen=True)
class Task:
    """One task of the world.

    Attributes:
        write_sample: ``(root, split, index, rng) -> record``: writes the pixels of one sample
            under the data root and returns what the annotation file will say about it.
        write_lists: ``(root, split, records) -> paths``: writes the annotation or list files of
            a split and returns their paths.
        counts: Samples per split, for each size of the world.
        megabytes: Disk space of the ``'small'`` size, rounded up.
    """

    write_sample: Callable[[Path, str, int, np.random.Generator], Any]
    write_lists: Callable[[Path, str, list[Any]], list[Path]]
    counts: dict[str, dict[str, int]]
    megabytes: int


def sample_generator(seed: int, task: str, split: str, index: int) -> np.random.Generator:
    """The random stream of one sample: it depends on these four values and nothing else."""
    return np.random.default_rng([seed, zlib.crc32(task.encode()), SPLITS.index(split), index])


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_text(path: Path, lines: list[str]) -> Path:
    """Writes lines of text; returns the path."""
    write_bytes(path, ''.join(f'{line}\n' for line in lines).encode())
    return path


def write_json(path: Path, content: Any) -> Path:
    """Writes compact JSON; returns the path."""
    write_bytes(path, json.dumps(content, separators=(',', ':')).encode())
    return path


def write_jpeg(path: Path, image: np.ndarray, quality: int = _JPEG_QUALITY) -> None:
    """Writes a BGR uint8 image as JPEG, whatever the suffix of the path says."""
    _write_image(path, '.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a uint8 image as PNG."""
    _write_image(path, '.png', image, [])


def _write_image(path: Path, kind: str, image: np.ndarray, options: list[int]) -> None:
    # cv2.imwrite would hide a full disk behind a return value.
    encoded, content = cv2.imencode(kind, image, options)
    assert encoded
    write_bytes(path, content.tobytes())
