# SPDX-License-Identifier: Apache-2.0
"""Action recognition: moving shapes in the layouts of Kinetics-400 and Something-Something V2.

Kinetics is trained with horizontal flips, so its classes survive a mirror. Something-Something
is not, so its classes are pairs of mirror images: with flips left on, none of them can be told.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .motion import render_clip
from .sample import Task, write_jpeg, write_text

KINETICS_CLASSES = (
    'drifting',
    'falling',
    'growing',
    'resting',
    'rising',
    'shaking',
    'shrinking',
    'spinning',
)

SSV2_CLASSES = (
    'moving_left',
    'moving_right',
    'turning_clockwise',
    'turning_counterclockwise',
)

_FPS = 25
_KINETICS_SIZES = ((172, 128), (160, 128), (128, 160))
_SSV2_SIZES = ((128, 96), (144, 96), (112, 96))
_FRAME_QUALITY = 80


def _write_mp4(path: Path, clip: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = clip[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), _FPS, (width, height))
    if not writer.isOpened():
        raise OSError(f'OpenCV cannot write the MPEG-4 video {path}: this build lacks the encoder')
    for frame in clip:
        writer.write(frame)
    writer.release()


def write_kinetics_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> str:
    """Renders one mp4; the record is its line of the list file."""
    label = index % len(KINETICS_CLASSES)
    name = KINETICS_CLASSES[label]
    width, height = _KINETICS_SIZES[rng.integers(len(_KINETICS_SIZES))]
    clip = render_clip(rng, name, int(rng.integers(36, 49)), width, height)
    relative = f'{name}/{split}_{index:05d}.mp4'
    _write_mp4(root / 'kinetics400' / f'videos_{split}' / relative, clip)
    return f'{relative} {label}'


def write_kinetics_lists(root: Path, split: str, records: list[str]) -> list[Path]:
    """Writes the list of a split and the class names."""
    folder = root / 'kinetics400'
    return [
        write_text(folder / f'kinetics400_{split}_list_videos.txt', records),
        write_text(folder / 'label_map_k400.txt', list(KINETICS_CLASSES)),
    ]


def write_ssv2_sample(root: Path, split: str, index: int, rng: np.random.Generator) -> str:
    """Renders the frames of one clip; the record is its line of the list file."""
    label = index % len(SSV2_CLASSES)
    width, height = _SSV2_SIZES[rng.integers(len(_SSV2_SIZES))]
    clip = render_clip(rng, SSV2_CLASSES[label], int(rng.integers(24, 33)), width, height)
    # Ids carry no split in Something-Something: train and val share one numbering.
    clip_id = str(1 + index + (100_000 if split == 'val' else 0))
    for number, frame in enumerate(clip, 1):
        path = root / 'sthv2' / 'rawframes' / clip_id / f'img_{number:05d}.jpg'
        write_jpeg(path, frame, _FRAME_QUALITY)
    return f'{clip_id} {len(clip)} {label}'


def write_ssv2_lists(root: Path, split: str, records: list[str]) -> list[Path]:
    """Writes the list of a split and the class names."""
    folder = root / 'sthv2'
    return [
        write_text(folder / f'sthv2_{split}_list_rawframes.txt', records),
        write_text(folder / 'label_map_sthv2.txt', list(SSV2_CLASSES)),
    ]


KINETICS = Task(
    write_kinetics_sample,
    write_kinetics_lists,
    counts={'small': {'train': 320, 'val': 64}, 'tiny': {'train': 16, 'val': 8}},
    megabytes=25,
)

SSV2 = Task(
    write_ssv2_sample,
    write_ssv2_lists,
    counts={'small': {'train': 200, 'val': 48}, 'tiny': {'train': 8, 'val': 8}},
    megabytes=30,
)
