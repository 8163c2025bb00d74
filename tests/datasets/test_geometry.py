# SPDX-License-Identifier: Apache-2.0
"""Crops and resizing against torch's interpolation and the official offsets."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from uniformer_mm.datasets.video import (
    ClipRandomResizedCrop,
    ClipShortSideResize,
    ClipUniformCrop,
    RGBToBGR,
)


def noise(height, width, frames=2):
    rng = np.random.default_rng(height + width)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(frames)]


def bilinear(frames, size):
    """float64, ``align_corners=False``, no antialiasing, as the official code asks torch."""
    x_TCHW = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).double()
    y_TCHW = interpolate(x_TCHW, size=size, mode='bilinear', align_corners=False)
    return y_TCHW.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize('shape', [(240, 320), (320, 200), (64, 64)])
def test_random_crop_is_one_box_resized_in_float(shape):
    frames = noise(*shape)
    for seed in range(8):
        random.seed(seed)
        results = ClipRandomResizedCrop(112)({'imgs': list(frames)})
        x1, y1, x2, y2 = results['crop_bbox']
        assert 0 <= x1 < x2 <= shape[1]
        assert 0 <= y1 < y2 <= shape[0]
        expected = bilinear([f[y1:y2, x1:x2] for f in frames], (112, 112))
        got = np.stack(results['imgs'])
        assert got.dtype == np.float32
        assert results['img_shape'] == (112, 112)
        assert np.abs(got - expected).max() < 1e-3


def test_random_boxes_have_the_official_distribution():
    transform = ClipRandomResizedCrop(112, area_range=(0.08, 0.5))
    random.seed(0)
    boxes = np.array([transform.random_box(400, 400) for _ in range(4000)], dtype=float)
    top, left, height, width = boxes.T
    area, log_ratio = height * width / 400**2, np.log(width / height)
    # Boxes up to half of a square always fit, so the draws are seen unfiltered.
    assert abs(area.mean() - 0.29) < 0.01
    assert area.min() > 0.078
    assert area.max() < 0.502
    assert abs(log_ratio.mean()) < 0.02
    assert abs(log_ratio.std() - math.log(16 / 9) / math.sqrt(12)) < 0.01
    assert np.abs(log_ratio).max() < math.log(4 / 3) + 0.02
    for offset, room in ((top, 400 - height), (left, 400 - width)):
        assert abs((offset / room).mean() - 0.5) < 0.02
        assert (offset == room).any(), 'the last position is included'


@pytest.mark.parametrize(
    ('shape', 'box'), [((20, 200), (0, 86, 20, 27)), ((200, 20), (86, 0, 27, 20))]
)
def test_frames_that_no_box_fits_are_cropped_in_the_centre(shape, box):
    transform = ClipRandomResizedCrop(8, area_range=(0.9, 1.0))
    assert transform.random_box(*shape) == box


@pytest.mark.parametrize(
    ('shape', 'size'),
    [((256, 340), (224, 297)), ((340, 256), (297, 224)), ((300, 300), (224, 224))],
)
def test_short_side_resize_floors_the_long_side(shape, size):
    frames = noise(*shape)
    results = ClipShortSideResize(224)({'imgs': frames})
    assert results['img_shape'] == size
    assert np.abs(np.stack(results['imgs']) - bilinear(frames, size)).max() < 1e-3


@pytest.mark.parametrize(
    ('shape', 'corners'),
    [
        ((224, 297), [(0, 0), (0, 37), (0, 73)]),
        ((298, 224), [(0, 0), (37, 0), (74, 0)]),
        ((224, 224), [(0, 0)] * 3),
    ],
)
def test_uniform_crops(shape, corners):
    frames = noise(*shape)
    results = ClipUniformCrop(224, num_crops=3)({'imgs': frames})
    expected = [f[top : top + 224, left : left + 224] for top, left in corners for f in frames]
    assert len(results['imgs']) == 6
    assert all(map(np.array_equal, results['imgs'], expected))
    centre = ClipUniformCrop(224, num_crops=1)({'imgs': frames})['imgs']
    assert all(map(np.array_equal, centre, expected[2:4]))


def test_channels_are_reversed():
    frames = noise(4, 5)
    reversed_ = RGBToBGR()({'imgs': frames})['imgs']
    for old, new in zip(frames, reversed_, strict=True):
        assert np.array_equal(new[..., 0], old[..., 2])
        assert np.array_equal(new[..., 1], old[..., 1])
        assert np.array_equal(new[..., 2], old[..., 0])


def test_errors():
    with pytest.raises(ValueError, match='num_crops=5 must be 1 or 3'):
        ClipUniformCrop(224, num_crops=5)
    with pytest.raises(ValueError, match='size=224 does not fit into frames of 30x20'):
        ClipUniformCrop(224)({'imgs': noise(20, 30)})
    with pytest.raises(ValueError, match='size=0 must be a size in pixels'):
        ClipRandomResizedCrop(0)
