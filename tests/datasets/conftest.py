# SPDX-License-Identifier: Apache-2.0
"""The video configs, and a small data root in their layouts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from ..conftest import ROOT, shared_dir

NAMES = ('uniformer_s_16x4_k400', 'uniformer_s_16_ssv2')


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Loads a video config from a foreign working directory; data lies under ``tmp_path/data``."""
    pytest.importorskip('mmaction')
    from mmaction.utils import register_all_modules

    register_all_modules()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path / 'data'))
    return lambda name: Config.fromfile(ROOT / 'configs' / 'video' / f'{name}.py')


def gestures(root: Path, videos: str, lists: str) -> Path:
    """Four real clips for each split under ``root``; the names hold ``{}`` for the split."""
    source = shared_dir('data', 'gesture')
    root.mkdir(parents=True)
    for split in ('train', 'val'):
        folder = root / videos.format(split)
        if not folder.exists():
            folder.symlink_to(source, target_is_directory=True)
        lines = (source / f'{split}_list.txt').read_text().splitlines()[::12][:4]
        (root / lists.format(split)).write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture
def gesture_as_kinetics(tmp_path) -> Path:
    """Four real clips as Kinetics-400 under the data root."""
    root = tmp_path / 'data' / 'kinetics400'
    return gestures(root, 'videos_{}', 'kinetics400_{}_list_videos.txt')


@pytest.fixture
def gesture_as_kinetics600(tmp_path) -> Path:
    """Four real clips as Kinetics-600 under the data root."""
    root = tmp_path / 'data' / 'kinetics600'
    return gestures(root, 'videos_{}', 'kinetics600_{}_list_videos.txt')


@pytest.fixture
def gesture_as_ucf101(tmp_path) -> Path:
    """Four real clips as split 1 of UCF101 under the data root."""
    root = tmp_path / 'data' / 'ucf101'
    return gestures(root, 'videos', 'ucf101_{}_split_1_videos.txt')


@pytest.fixture
def clips_as_hmdb51(tmp_path) -> Path:
    """Real HMDB51 clips as extracted frames under the data root, losslessly compressed."""
    root = tmp_path / 'data' / 'hmdb51'
    lines = []
    for path in sorted(shared_dir('data', 'clips', 'videos').glob('*_wave_*.avi')):
        folder = root / 'rawframes' / 'wave' / path.stem
        folder.mkdir(parents=True)
        video = cv2.VideoCapture(str(path))
        number = 0
        while (frame := video.read()[1]) is not None:
            number += 1
            # PNG data under the official name: OpenCV reads by content.
            data = cv2.imencode('.png', frame)[1]
            (folder / f'img_{number:05d}.jpg').write_bytes(data.tobytes())
        lines.append(f'wave/{path.stem} {number} 50\n')
    for split in ('train', 'val'):
        (root / f'hmdb51_{split}_split_1_rawframes.txt').write_text(''.join(lines))
    return root


def orange(root: Path, name: str, lists: str) -> Path:
    """One clip of frames: orange, and brighter from frame to frame."""
    folder = root / 'rawframes' / '7'
    folder.mkdir(parents=True)
    for number in range(1, 31):
        frame = np.empty((60, 80, 3), np.uint8)
        frame[...] = (number, 100 + number, 200 + number)
        path = folder / name.format(number)
        cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, 100])
    for split in ('train', 'val'):
        (root / lists.format(split)).write_text('7 30 3\n')
    return root


@pytest.fixture
def orange_as_sthv1(tmp_path) -> Path:
    """The orange clip as Something-Something V1."""
    root = tmp_path / 'data' / 'sthv1'
    return orange(root, '{:05d}.jpg', 'sthv1_{}_list_rawframes.txt')


@pytest.fixture
def orange_as_sthv2(tmp_path) -> Path:
    """The orange clip as Something-Something V2."""
    root = tmp_path / 'data' / 'sthv2'
    return orange(root, 'img_{:05d}.jpg', 'sthv2_{}_list_rawframes.txt')
