# SPDX-License-Identifier: Apache-2.0
"""Where the official list of a leaderboard file usually lies below the root of the data sets."""

from __future__ import annotations

import re
from pathlib import Path

from .reading import open_members

_COCO = 'coco/annotations'
# Benchmark: (what the file's name, or its first label map's, begins with, where the list lies).
_LISTS = {
    'coco': (
        (r'person_keypoints_val2017_', f'{_COCO}/person_keypoints_val2017.json'),
        (r'detections_val2017_', f'{_COCO}/instances_val2017.json'),
        (r'[a-z_]+_test-dev2017_', f'{_COCO}/image_info_test-dev2017.json'),
        (r'[a-z_]+_test-challenge2017_', f'{_COCO}/image_info_test2017.json'),
    ),
    'ade20k': (
        (r'ADE_test_', 'ade/release_test/testing'),
        (r'ADE_val_', 'ade/ADEChallengeData2016/images/validation'),
    ),
    'kinetics': (
        (r'kinetics400_', 'kinetics400/kinetics400_test_list_videos.txt'),
        (r'kinetics600_', 'kinetics600/kinetics600_test_list_videos.txt'),
    ),
    'ssv2': ((r'', 'sthv2/sthv2_test_list_rawframes.txt'),),
}


def usual_list(path: Path, kind: str, data: Path) -> Path | None:
    """The official list that a leaderboard file belongs to, if it lies where it usually does.

    Args:
        path: The leaderboard file.
        kind: Benchmark; ``'coco'`` or one of its tasks where the name tells which images.
        data: Root of the data sets.

    Returns:
        A file or folder that is there, or None.
    """
    name = path.name
    if kind == 'ade20k':
        names = open_members(path).names
        name = names[0] if names else ''
    for beginning, place in _LISTS[kind.partition('-')[0]]:
        if re.match(beginning, name):
            return data / place if (data / place).exists() else None
    return None
