# SPDX-License-Identifier: Apache-2.0
"""Frame indices against the official formulas in exact arithmetic."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from uniformer_mm.datasets.video import LinspaceSampleFrames, SegmentSampleFrames

LENGTHS = (1, 2, 17, 63, 64, 65, 150, 300)


def sample(transform, total_frames, start_index=0):
    results = transform({'total_frames': total_frames, 'start_index': start_index})
    return results['frame_inds'].reshape(results['num_clips'], results['clip_len'])


def points(start, n, r, total):
    """``linspace(start, start + n*r - 1, n)``, clamped and truncated, exactly."""
    step = Fraction(n * r - 1, n - 1)
    return [min(int(Fraction(start) + step * i), total - 1) for i in range(n)]


@pytest.mark.parametrize('views', [1, 4, 5])
@pytest.mark.parametrize(('n', 'r'), [(16, 4), (8, 8), (16, 8), (32, 4)])
def test_dense_views_start_at_whole_shares_of_the_slack(n, r, views):
    transform = LinspaceSampleFrames(n, r, num_clips=views, test_mode=True)
    for total in LENGTHS:
        slack = max(total - n * r, 0)
        starts = [slack // 2] if views == 1 else [i * (slack // (views - 1)) for i in range(views)]
        expected = [points(start, n, r, total) for start in starts]
        assert sample(transform, total).tolist() == expected, total


def test_dense_step_is_not_the_interval():
    # 63 / 15 = 4.2 for 16x4: the last index is 63, where the stride rule would give 60.
    frames = sample(LinspaceSampleFrames(16, 4, test_mode=True), 64)[0]
    assert frames[0] == 0
    assert frames[-1] == 63
    assert set(np.diff(frames)) == {4, 5}


def test_dense_training_start_is_real_and_uniform():
    n, r, total = 16, 4, 164
    transform = LinspaceSampleFrames(n, r)
    patterns, starts = set(), []
    for seed in range(400):
        random.seed(seed)
        frames = sample(transform, total)[0]
        start = random.Random(seed).uniform(0, total - n * r)
        exact = np.array([start + (n * r - 1) / (n - 1) * i for i in range(n)])
        # float32, as the official code: only a point on the edge of two frames may go either way.
        assert np.all((frames == np.floor(exact)) | (np.abs(exact - np.round(exact)) < 1e-4))
        patterns.add(tuple(np.diff(frames)))
        starts.append(frames[0])
    assert len(patterns) > 1, 'a whole-numbered start gives one pattern of steps'
    assert min(starts) <= 3
    assert max(starts) >= 96
    assert abs(np.mean(starts) - 49.5) < 5


@pytest.mark.parametrize('n', [8, 16, 32])
def test_segment_views(n):
    for views in (1, 2, 3):
        transform = SegmentSampleFrames(n, num_clips=views, test_mode=True)
        for total in LENGTHS:
            g = Fraction(total - 1, n)
            expected = [
                # round() of a Fraction rounds half to even, as numpy does; frames count from 1.
                [round(g * i) + math.floor(g / (views + 1) * (v + 1)) + 1 for i in range(n)]
                for v in range(views)
            ]
            assert sample(transform, total, start_index=1).tolist() == expected, (views, total)


@pytest.mark.parametrize('total', [5, 40, 97])
def test_segment_training_reaches_both_ends_of_every_segment(total):
    n = 16
    g = Fraction(total - 1, n)
    transform = SegmentSampleFrames(n)
    random.seed(0)
    drawn = np.stack([sample(transform, total, start_index=1)[0] for _ in range(600)])
    for i in range(n):
        allowed = range(round(g * i) + 1, round(g * (i + 1)) + 2)
        assert set(drawn[:, i]) == set(allowed), i
    assert drawn.min() == 1
    assert drawn.max() == total


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: LinspaceSampleFrames(0, 4), 'clip_len=0 must be an integer of at least 1'),
        (lambda: LinspaceSampleFrames(16, 0), 'frame_interval=0 must be an integer of at least 1'),
        (lambda: SegmentSampleFrames(16, num_clips=3), 'num_clips=3 needs test_mode=True'),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_empty_video_is_named():
    with pytest.raises(ValueError, match=r'a\.mp4: total_frames=0'):
        LinspaceSampleFrames(16, 4)({'total_frames': 0, 'start_index': 0, 'filename': 'a.mp4'})
