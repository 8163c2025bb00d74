# SPDX-License-Identifier: Apache-2.0
"""Erasing: one box, noise of every pixel and frame, the official ranges."""

from __future__ import annotations

import random

import numpy as np
import pytest

from uniformer_mm.datasets.video import CubeErasing

MEAN, STD = 114.75, 57.375


def erase(prob, frames=2, shape=(60, 80, 3)):
    clip = [np.full(shape, -1000, np.float32) for _ in range(frames)]
    return CubeErasing(prob=prob, mean=MEAN, std=STD)({'imgs': clip})['imgs']


def boxes(clip):
    """Bounds of the changed pixels, for each frame."""
    found = []
    for frame in clip:
        changed = (frame != -1000).all(axis=-1)
        assert np.array_equal(changed, (frame != -1000).any(axis=-1)), 'all channels or none'
        rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
        found.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return found


def test_a_quarter_of_the_clips_is_erased():
    random.seed(0)
    np.random.seed(0)
    erased = [any((frame != -1000).any() for frame in erase(0.25, frames=1)) for _ in range(3000)]
    assert abs(np.mean(erased) - 0.25) < 0.025


def test_one_box_for_all_frames_in_the_official_ranges():
    random.seed(0)
    areas, ratios = [], []
    for _ in range(1000):
        bounds = boxes(erase(1.0))
        assert len(set(bounds)) == 1
        top, bottom, left, right = bounds[0]
        height, width = bottom - top, right - left
        assert height < 60
        assert width < 80
        areas.append(height * width / (60 * 80))
        ratios.append(height / width)
    assert min(areas) > 0.018
    assert 0.3 < max(areas) < 0.345
    assert 0.25 < min(ratios) < 0.4
    assert 2.5 < max(ratios) < 3.7
    # Unfitting boxes (large and elongated) are drawn again, which lowers the mean of 0.177 a bit.
    assert 0.15 < np.mean(areas) < 0.18


def test_noise_is_standard_normal_once_normalised_and_fresh_per_frame():
    random.seed(3)
    np.random.seed(3)
    clip = erase(1.0, frames=8, shape=(200, 200, 3))
    top, bottom, left, right = boxes(clip)[0]
    noise = (np.stack(clip)[:, top:bottom, left:right] - MEAN) / STD
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs((np.abs(noise) < 1).mean() - 0.683) < 0.02
    flat = noise.reshape(8, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.1
    channels = noise.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.1


def test_errors():
    with pytest.raises(ValueError, match='the frames are uint8'):
        CubeErasing(prob=1.0)({'imgs': [np.zeros((8, 8, 3), np.uint8)]})
    with pytest.raises(ValueError, match=r'prob=1\.5 must be between 0 and 1'):
        CubeErasing(prob=1.5)
