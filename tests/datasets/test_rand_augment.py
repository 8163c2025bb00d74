# SPDX-License-Identifier: Apache-2.0
"""RandAugment: each operation against pixel arithmetic, the draws against their distribution."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from uniformer_mm.datasets.video import ClipRandAugment

OPS = {
    'AutoContrast', 'Equalize', 'Invert', 'Rotate', 'Posterize', 'Solarize', 'SolarizeAdd', 'Color',
    'Contrast', 'Brightness', 'Sharpness', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY',
}  # fmt: skip
LUMA = np.array([299, 587, 114]) / 1000
FILL = (10, 128, 200)


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(20, 230, (24, 24, 3), dtype=np.uint8)


def one_op(frame, name, value, interpolation='nearest'):
    return ClipRandAugment(fill=FILL, interpolation=interpolation).apply(frame, [(name, value)])


def pull(frame, source):
    """The frame whose pixel (x, y) is that at ``source(x + .5, y + .5)``, nearest neighbour."""
    height, width = frame.shape[:2]
    out = np.empty_like(frame)
    for y in range(height):
        for x in range(width):
            u, v = (int(np.floor(c)) for c in source(x + 0.5, y + 0.5))
            out[y, x] = frame[v, u] if 0 <= u < width and 0 <= v < height else FILL
    return out


@pytest.mark.parametrize(
    ('name', 'value', 'source'),
    [
        ('ShearX', 0.23, lambda x, y: (x + 0.23 * y, y)),
        ('ShearY', -0.17, lambda x, y: (x, y - 0.17 * x)),
        ('TranslateX', 0.25, lambda x, y: (x + 0.25 * 24, y)),
        ('TranslateY', -0.125, lambda x, y: (x, y - 0.125 * 24)),
        # A quarter turn counter-clockwise about the centre, y pointing down.
        ('Rotate', 90, lambda x, y: (24 - y, x)),
    ],
)
def test_geometric_operations(frame, name, value, source):
    assert np.array_equal(one_op(frame, name, value), pull(frame, source))


def test_colour_operations(frame):
    wide = frame.astype(float)
    grey = np.round(wide @ LUMA)[..., None]
    expected = {
        ('Invert', 0): 255 - wide,
        ('Solarize', 77): np.where(wide < 77, wide, 255 - wide),
        ('SolarizeAdd', 70): np.where(wide < 128, np.minimum(wide + 70, 255), wide),
        ('Posterize', 2): wide // 64 * 64,
        ('Brightness', 1.6): np.clip(wide * 1.6, 0, 255),
        ('Color', 0.3): grey + 0.3 * (wide - grey),
        ('Contrast', 1.5): np.clip(grey.mean() + 1.5 * (wide - grey.mean()), 0, 255),
        ('AutoContrast', 0): (wide - wide.min((0, 1))) * 255 / np.ptp(wide, (0, 1)),
    }
    for (name, value), target in expected.items():
        difference = np.abs(one_op(frame, name, value) - target).max()
        assert difference <= 1 + 0.5 * (name == 'Contrast'), name


def test_sharpness_moves_away_from_the_smoothed_frame(frame):
    wide = frame.astype(float)
    around = sum(wide[1 + dy : 23 + dy, 1 + dx : 23 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    smooth = (around + 4 * wide[1:-1, 1:-1]) / 13
    for value in (0.2, 1.7):
        expected = np.clip(smooth + value * (wide[1:-1, 1:-1] - smooth), 0, 255)
        assert np.abs(one_op(frame, 'Sharpness', value)[1:-1, 1:-1] - expected).max() <= 1.5


def test_equalize_flattens_the_histogram_of_each_channel():
    # Triangular histograms around 100, 120, 140.
    dice = np.random.default_rng(0).integers(0, 70, (2, 128, 128, 3)).sum(axis=0)
    flat = one_op((dice + np.array([30, 50, 70])).astype(np.uint8), 'Equalize', 0).astype(float)
    assert np.abs(flat.mean(axis=(0, 1)) - 127.5).max() < 4
    assert np.abs(flat.std(axis=(0, 1)) - 255 / math.sqrt(12)).max() < 3


def policies(count, **kwargs):
    random.seed(1)
    np.random.seed(1)
    transform = ClipRandAugment(**kwargs)
    return [transform.random_policy() for _ in range(count)]


def test_each_of_four_draws_takes_place_half_of_the_time():
    lengths = np.array([len(policy) for policy in policies(4000)])
    assert lengths.max() == 4
    assert abs(lengths.mean() - 2) < 0.06
    # Binomial(4, 1/2).
    shares = np.bincount(lengths, minlength=5) / len(lengths)
    assert np.abs(shares - np.array([1, 4, 6, 4, 1]) / 16).max() < 0.03


def test_operations_are_equally_likely_and_may_repeat():
    drawn = policies(6000)
    counts = Counter(name for policy in drawn for name, _ in policy)
    assert set(counts) == OPS
    shares = np.array(list(counts.values())) / sum(counts.values())
    assert np.abs(shares - 1 / 15).max() < 0.01
    assert any(len({name for name, _ in policy}) < len(policy) for policy in drawn)


@pytest.mark.parametrize(
    ('increasing', 'means'),
    [
        # Means of |value| at magnitudes N(7, 0.5). Truncation takes 1/2 off a mean, but
        # int(0.4 * magnitude) is 3 above 7.5, with probability 0.159, and else 2.
        (True, {'Rotate': 21, 'ShearX': 0.21, 'TranslateY': 0.315, 'Solarize': 256 - 178.7,
                'SolarizeAdd': 76.5, 'Color': 0.63, 'Posterize': 4 - 2.159}),
        (False, {'Rotate': 21, 'Solarize': 178.7, 'SolarizeAdd': 76.5, 'Color': 1.36,
                 'Posterize': 2.159}),
    ],
)  # fmt: skip
def test_values_follow_the_magnitude(increasing, means):
    values = {name: [] for name in OPS}
    for policy in policies(12000, increasing=increasing):
        for name, value in policy:
            values[name].append(value)
    for name, mean in means.items():
        got = np.array(values[name], dtype=float)
        if increasing and name == 'Color':
            got = got - 1
        strength = np.abs(got)
        assert abs(strength.mean() - mean) < 0.02 * mean, name
        signed = name in ('Rotate', 'ShearX', 'TranslateY') or (increasing and name == 'Color')
        assert abs((got < 0).mean() - 0.5 * signed) < 0.05, name
    # N(7, 0.5) in units of 30 / 10 degrees.
    assert abs(np.abs(values['Rotate']).std() - 1.5) < 0.1
    assert all(isinstance(value, int) for value in values['Posterize'] + values['Solarize'])


def test_all_frames_undergo_the_same(frame):
    frames = [frame, np.ascontiguousarray(frame[::-1]), frame // 2]
    before = [f.copy() for f in frames]
    transform = ClipRandAugment()
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        policy = transform.random_policy()
        random.seed(seed)
        np.random.seed(seed)
        results = transform({'imgs': list(frames)})
        for old, new in zip(frames, results['imgs'], strict=True):
            assert np.array_equal(new, transform.apply(old, policy))
    assert all(map(np.array_equal, frames, before)), 'the decoded frames are shared by all copies'


def test_refuses_frames_that_are_not_decoded_images(frame):
    with pytest.raises(ValueError, match='put it right after decoding'):
        ClipRandAugment()({'imgs': [frame.astype(np.float32)]})
    with pytest.raises(ValueError, match="interpolation='cubic' is not known"):
        ClipRandAugment(interpolation='cubic')
    with pytest.raises(ValueError, match='magnitude=11 must be between 0 and 10'):
        ClipRandAugment(magnitude=11)
