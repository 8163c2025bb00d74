# SPDX-License-Identifier: Apache-2.0
"""What is wrong with COCO results: boxes, masks or keypoints."""

from __future__ import annotations

import re
from pathlib import PurePath

from ..issues import Issues, shown
from ..official import CocoImages
from ..reading import is_integer, is_number
from .rle import mask_issue

KEYPOINTS = 17
REPEATED = 'result twice'
TEST_SETS = ('val2017', 'test-dev2017', 'test-challenge2017')
FILE_TYPES = {
    'coco-det': 'detections',
    'coco-segm': 'detections',
    'coco-keypoints': 'person_keypoints',
}
# What lies in an image, so that its size has to be known.
_WITHIN = {'coco-det': 'boxes', 'coco-segm': 'mask sizes', 'coco-keypoints': 'positions'}
PAYLOAD = {'coco-det': 'bbox', 'coco-segm': 'segmentation', 'coco-keypoints': 'keypoints'}
# The 80 categories keep the ids of the 91 that were planned.
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = frozenset(range(1, 91)) - _UNUSED
# Both ends of a side are rounded to 0.1 pixels.
_TOLERANCE = 0.15
_NAME = re.compile(
    rf'^({"|".join(sorted(set(FILE_TYPES.values())))})_({"|".join(TEST_SETS)})_([^_\s]+)_results$'
)


def guess_task(entries: object, name: str) -> str | None:
    """The task of results by the keys of the first entry, or None.

    A file without entries is taken for what its name says: boxes, unless it says keypoints.
    """
    if entries == []:
        keypoints = PurePath(name).name.startswith(FILE_TYPES['coco-keypoints'])
        return 'coco-keypoints' if keypoints else 'coco-det'
    first = entries[0] if isinstance(entries, list) else None
    if not isinstance(first, dict):
        return None
    order = ('coco-keypoints', 'coco-segm', 'coco-det')
    return next((task for task in order if PAYLOAD[task] in first), None)


def check_name(name: str, task: str, issues: Issues) -> None:
    """The name ``[type]_[testset]_[alg]_results`` of a JSON file or archive."""
    found = _NAME.match(PurePath(name).stem)
    expected = f'{FILE_TYPES[task]}_TESTSET_ALGORITHM_results'
    if found is None:
        issues.add(
            'wrong file name',
            '',
            f'{shown(name)}, expected {expected} with TESTSET one of {", ".join(TEST_SETS)} and an '
            'ALGORITHM without "_" and spaces',
        )
    elif found.group(1) != FILE_TYPES[task]:
        issues.add('wrong file name', '', f'{shown(name)} for {task}, expected {expected}')


def check_entries(entries: object, task: str, images: CocoImages | None, issues: Issues) -> None:
    """Check the list of results.

    Args:
        entries: The JSON value of the file.
        task: ``'coco-det'``, ``'coco-segm'`` or ``'coco-keypoints'``.
        images: The official list; without it ids are only checked for their type.
        issues: Where issues go.
    """
    if not isinstance(entries, list):
        issues.add('not a list', '', f'{shown(entries)}, expected a list of results')
        return
    if not entries:
        issues.add('empty', '', 'no results at all')
        return
    check = {'coco-det': _check_box, 'coco-segm': _check_mask, 'coco-keypoints': _check_keypoints}
    needed = {'image_id', 'category_id', 'score', PAYLOAD[task]}
    seen: set[int] = set()
    used: set[int] = set()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not needed <= entry.keys():
            have = sorted(entry, key=str) if isinstance(entry, dict) else entry
            issues.add(
                'keys missing', f'entry {index}', f'{shown(have)}, expected {sorted(needed)}'
            )
            continue
        where = f'entry {index} (image {shown(entry["image_id"])})'
        size = _check_ids(entry, task, images, where, issues)
        score = entry['score']
        if not is_number(score) or (task != 'coco-keypoints' and not 0 <= score <= 1):
            expected = 'a finite number' if task == 'coco-keypoints' else 'a number from 0 to 1'
            issues.add('score out of range', where, f'score {shown(score)}, expected {expected}')
        sound = check[task](entry, size, where, issues)
        if sound and all(map(is_number, (entry['image_id'], entry['category_id'], score))):
            key = hash((entry['image_id'], entry['category_id'], score, _payload_key(entry, task)))
            if key in seen:
                issues.add(REPEATED, where, 'equal to an earlier entry in every value')
            seen.add(key)
        used.add(entry['image_id'] if is_integer(entry['image_id']) else -1)
    if images is None:
        issues.unchecked = f'ids and {_WITHIN[task]}'
        return
    without = len(images.sizes.keys() - used)
    if without:
        issues.note(f'{without:,} of {len(images.sizes):,} images have no result')


def _payload_key(entry: dict, task: str) -> object:
    payload = entry[PAYLOAD[task]]
    return payload['counts'] if task == 'coco-segm' else tuple(payload)


def _check_ids(
    entry: dict, task: str, images: CocoImages | None, where: str, issues: Issues
) -> tuple[int | None, int | None]:
    """Check both ids; the width and height of the image, if they are known."""
    image, category = entry['image_id'], entry['category_id']
    size = (None, None)
    if not is_integer(image):
        issues.add('image_id is no integer', where, f'{shown(image)}, expected an integer')
    elif images is not None:
        size = images.sizes.get(image, (None, None))
        if image not in images.sizes:
            issues.add(
                'image not in the official list',
                where,
                f'image_id {image} is not among the {len(images.sizes):,} of {images.source}',
            )
    if task == 'coco-keypoints':
        allowed, words = {1}, '1 (person)'
    elif images is not None:
        allowed, words = images.categories, f'one of the {len(images.categories)} ids of the list'
    else:
        allowed, words = CATEGORY_IDS, "one of COCO's 80 ids between 1 and 90"
    if not is_integer(category) or category not in allowed:
        hint = '; class indices must be turned into original ids'
        issues.add(
            'unknown category_id',
            where,
            f'{shown(category)}, expected {words}'
            + (hint if is_integer(category) and (category == 0 or category in _UNUSED) else ''),
        )
    return size


def _check_box(
    entry: dict, size: tuple[int | None, int | None], where: str, issues: Issues
) -> bool:
    box = entry['bbox']
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        issues.add(
            'bad box', where, f'bbox {shown(box)}, expected four finite numbers [x, y, w, h]'
        )
        return False
    x, y, w, h = box
    if w < 0 or h < 0:
        issues.add('bad box', where, f'bbox {shown(box)} has a negative side')
    elif min(x, y) < -_TOLERANCE:
        issues.add('box outside its image', where, f'bbox {shown(box)} starts outside')
    elif None not in size and (x + w > size[0] + _TOLERANCE or y + h > size[1] + _TOLERANCE):
        ends = f'({x + w:.1f}, {y + h:.1f})'
        issues.add(
            'box outside its image',
            where,
            f'bbox {shown(box)} ends at {ends}, the image has {size[0]}x{size[1]} pixels '
            '(are they [x, y, w, h]?)',
        )
    return True


def _check_mask(
    entry: dict, size: tuple[int | None, int | None], where: str, issues: Issues
) -> bool:
    issue = mask_issue(entry['segmentation'], size[1], size[0])
    if issue:
        issues.add('bad mask', where, issue)
    if 'bbox' in entry:
        # pycocotools' loadRes then takes areas from the boxes, which moves AP small/medium/large.
        issues.add('box beside a mask', where, 'leave bbox out: scorers take the area from it')
    return issue is None


def _check_keypoints(
    entry: dict, size: tuple[int | None, int | None], where: str, issues: Issues
) -> bool:
    points = entry['keypoints']
    if not isinstance(points, list) or len(points) != 3 * KEYPOINTS:
        count = len(points) if isinstance(points, list) else shown(points)
        issues.add(
            'wrong number of keypoint values',
            where,
            f'{count}, expected {3 * KEYPOINTS} ({KEYPOINTS} times x, y, v)',
        )
        return False
    if not all(map(is_number, points)):
        index = next(i for i, value in enumerate(points) if not is_number(value))
        issues.add(
            'bad keypoint',
            where,
            f'value {index} is {shown(points[index])}, expected a finite number',
        )
        return False
    visible = next((v for v in points[2::3] if v not in (0, 1, 2)), None)
    if visible is not None:
        issues.add('bad keypoint', where, f'v is {visible}, expected 0, 1 or 2 (not used: write 1)')
    if 'bbox' in entry:
        issues.add('box beside keypoints', where, 'leave bbox out: scorers take the area from it')
    if None not in size:
        for axis, name in enumerate('xy'):
            values = points[axis::3]
            # A joint outside the image is a fair guess, one a image away is another unit.
            if min(values) < -size[axis] or max(values) > 2 * size[axis]:
                issues.add(
                    'keypoints far outside their image',
                    where,
                    f'{name} from {min(values):.1f} to {max(values):.1f}, the image has '
                    f'{size[0]}x{size[1]} pixels',
                )
    return True
