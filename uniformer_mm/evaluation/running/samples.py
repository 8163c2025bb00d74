# SPDX-License-Identifier: Apache-2.0
"""What a data set consists of, the same on every machine: keys, a digest, subsets, gaps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATH_KEYS = ('img_path', 'filename', 'frame_dir')


@dataclass(frozen=True)
class Sample:
    """One sample of a toolbox's data set.

    Attributes:
        position: Index in the data set.
        key: File or folder with its parent folder's name (``abseiling/x.mp4``), which does not
            depend on where the data lies; persons of one image share it.
        path: Image, video or folder of frames.
        label: What the list says about it: class id, image id, or image id and box.
    """

    position: int
    key: str
    path: Path
    label: str


def list_samples(dataset: Any) -> list[Sample]:
    """The samples of an initialised data set of mmengine, in its order.

    Args:
        dataset: A data set with ``get_data_info``.

    Raises:
        ValueError: It is empty, or a sample names no file.
    """
    samples = []
    for position in range(len(dataset)):
        info = dataset.get_data_info(position)
        path = next((Path(info[name]) for name in _PATH_KEYS if info.get(name)), None)
        if path is None:
            raise ValueError(f'sample {position} of the data set names no file, only {list(info)}.')
        samples.append(Sample(position, '/'.join(path.parts[-2:]), path, _label(info)))
    if not samples:
        raise ValueError(f'the data set is empty ({type(dataset).__name__}); check --data.')
    return samples


def _label(info: dict) -> str:
    if 'bbox' in info:
        box = ','.join(f'{float(value):.2f}' for value in info['bbox'].reshape(-1))
        return f'{info["img_id"]}:{box}'
    for name in ('img_id', 'gt_label', 'label'):
        if name in info:
            return str(info[name])
    return ''


def list_digest(samples: Iterable[Sample], files: Sequence[str | Path] = ()) -> str:
    """sha256 of keys and labels in their order, and of whole annotation files."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f'{sample.key}\t{sample.label}\n'.encode())
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()


def choose(samples: Sequence[Sample], limit: int | None, seed: int = 0) -> list[Sample]:
    """A random subset of images or videos, the same whatever the machine and the list's order.

    The files with the smallest hash of seed and key are taken; all persons of an image go
    together.

    Args:
        samples: All samples.
        limit: Number of files; None takes everything.
        seed: Another subset for another number.

    Returns:
        The chosen samples in the data set's order.

    Raises:
        ValueError: A limit below one.
    """
    if limit is None:
        return list(samples)
    if limit < 1:
        raise ValueError(f'limit={limit} must be at least 1.')
    keys = sorted({sample.key for sample in samples}, key=lambda key: _rank(key, seed))
    chosen = set(keys[:limit])
    return [sample for sample in samples if sample.key in chosen]


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f'{seed}\t{key}'.encode()).digest()


def split_missing(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples whose file is there, and the others."""
    there: dict[Path, bool] = {}
    for sample in samples:
        if sample.path not in there:
            there[sample.path] = sample.path.exists()
    return (
        [sample for sample in samples if there[sample.path]],
        [sample for sample in samples if not there[sample.path]],
    )
