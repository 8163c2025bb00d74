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


@pytest.fixture
def gesture_as_kinetics(tmp_path) -> Path:
    """Four real clips as Kinetics-400 under the data root."""
    source = shared_dir('data', 'gesture')
    root = tmp_path / 'data' / 'kinetics400'
    root.mkdir(parents=True)
    for split in ('train', 'val'):
        (root / f'videos_{split}').symlink_to(source, target_is_directory=True)
        lines = (source / f'{split}_list.txt').read_text().splitlines()[::12][:4]
        (root / f'kinetics400_{split}_list_videos.txt').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture
def orange_as_sthv2(tmp_path) -> Path:
    """One clip of frames as Something-Something: orange, and brighter from frame to frame."""
    root = tmp_path / 'data' / 'sthv2'
    folder = root / 'rawframes' / '7'
    folder.mkdir(parents=True)
    for number in range(1, 31):
        frame = np.empty((60, 80, 3), np.uint8)
        frame[...] = (number, 100 + number, 200 + number)
        cv2.imwrite(str(folder / f'img_{number:05d}.jpg'), frame, [cv2.IMWRITE_JPEG_QUALITY, 100])
    for split in ('train', 'val'):
        (root / f'sthv2_{split}_list_rawframes.txt').write_text('7 30 3\n')
    return root
