# SPDX-License-Identifier: Apache-2.0
"""Run lengths: what pycocotools encodes is accepted, what it must not decode is not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pycocotools import mask as mask_api

from uniformer_mm.submission.coco.rle import mask_issue, run_lengths


def encode(mask_HW: np.ndarray) -> dict:
    rle = mask_api.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    return {'size': rle['size'], 'counts': rle['counts'].decode()}


def test_runs_paint_the_mask_that_was_encoded():
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask_HW = rng.random(rng.integers(1, 90, 2)) < rng.random()
        rle = encode(mask_HW)
        assert mask_issue(rle, *mask_HW.shape) is None
        runs = run_lengths(rle['counts'])
        painted = np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask_HW.shape[::-1]).T
        np.testing.assert_array_equal(painted, mask_HW)


def test_long_runs():
    mask_HW = np.zeros((3000, 4000), bool)
    mask_HW[10:2000, 1000:3000] = True
    assert mask_issue(encode(mask_HW), 3000, 4000) is None


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({'counts': '13'}, 'counts cover 4 pixels, but size .* has 300'),
        ({'size': [15, 20]}, r'size \[15, 20\], but the image has \[20, 15\]'),
        ({'counts': 'héé'}, 'characters outside'),
        ({'counts': '1~'}, 'characters outside'),
        ({'counts': '0T'}, 'the last number is cut off'),
        ({'counts': 'T' * 8 + '0'}, 'more than 35 bits'),
        ({'counts': 'N'}, 'a run of -2 pixels'),
        ({'counts': [0, 300]}, r'counts is a list \(uncompressed\)'),
        ({'counts': 7}, 'counts is int'),
        ({'size': '20x15'}, r"size '20x15', expected \[height, width\]"),
        ({'size': [20, True]}, r'expected \[height, width\]'),
        ({'size': [10**9, 10**9]}, 'is no image size'),
        ({'size': [0, 15]}, 'is no image size'),
        (None, 'an object with size and counts'),
    ],
)
def test_faults(change, expected):
    mask = encode(np.ones((20, 15), bool))
    value = mask | change if change is not None else [1, 2]
    assert re.search(expected, mask_issue(value, 20, 15))
