# SPDX-License-Identifier: Apache-2.0
"""When a measured number agrees with a published one, for tests with a toolbox and without."""

from __future__ import annotations

from collections.abc import Sequence

TOLERANCES = {'cls': 0.15, 'det': 0.2, 'seg': 0.3, 'pose': 0.3, 'video': 0.3}
"""Percentage points that a faithful test may lie off: published numbers have one decimal, decoders
and resizing differ between library versions, and video lists lose members over the years."""

HEADLINES = ('top1', 'bbox_mAP', 'segm_mAP', 'mIoU', 'mIoU_ms', 'AP')
"""Metrics that decide; others are shown beside them (two published AR of pose rows are wrong)."""

MAX_MISSING_SHARE = 0.05
"""Share of missing files above which a list is no longer the published one, and share by which its
length may differ: video lists lose members over the years, and there are several of each."""


def within(measured: float, published: float, tolerance: float) -> bool:
    """Whether two percentages differ by the tolerance at most, on either side."""
    return abs(measured - published) <= tolerance + 1e-9


def of_published_length(files: int, published: int) -> bool:
    """Whether as many files were tested as the published number is of, a few aside."""
    return abs(files - published) <= MAX_MISSING_SHARE * published


def agreement_text(metrics: Sequence[str], agrees: bool, tolerance: float) -> str:
    """The verdict about metrics that can be compared, as a sentence."""
    side = 'within' if agrees else 'OUTSIDE'
    return f'{", ".join(metrics)} {side} {tolerance:g} points of the published result'
