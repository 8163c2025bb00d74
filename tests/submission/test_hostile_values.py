# SPDX-License-Identifier: Apache-2.0
"""Any JSON value in any place, any damaged byte: issues or one sentence, never a traceback."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniformer_mm.submission.check import check_file
from uniformer_mm.submission.official import read_coco_images, read_videos
from uniformer_mm.submission.video.predictions import read_video_scores

from .conftest import write_json

VALUES = (
    None, True, 0, -1, 3, 10**30, 0.5, 1e300, '', 'x', '1', '\ud800\x1b[2J', [], [1], ['a'], [[1]],
    [None] * 4, [1e308] * 4, [{}] * 51, {}, {'a': 1}, {'size': [[1], 2], 'counts': '4'},
    {'size': [2, 2], 'counts': ['4']}, {'size': [10**20, 10**20], 'counts': ''},
    {'size': [2, 2], 'counts': '\u0663'},
)  # fmt: skip
ENTRY = {'image_id': 1, 'category_id': 1, 'score': 0.5}
SOUND = {
    'detections': [ENTRY | {'bbox': [0, 0, 1, 1]}],
    'masks': [ENTRY | {'segmentation': {'size': [2, 2], 'counts': '4'}}],
    'person_keypoints': [ENTRY | {'keypoints': [1] * 51}],
    'kinetics': {
        'version': 'KINETICS VERSION 1.0',
        'external_data': {'used': True, 'details': 'ImageNet-1K'},
        'results': {
            'a': [
                {'label': label, 'score': 0.5}
                for label in ('abseiling', 'zumba', 'yoga', 'archery', 'bowling')
            ]
        },
    },
}
LIST = {
    'images': [{'id': 1, 'width': 2, 'height': 2}],
    'categories': [{'id': 1, 'name': 'person'}],
}
FILE_NAMES = {
    'detections': 'detections_val2017_X_results.json',
    'masks': 'detections_val2017_X_results.json',
    'person_keypoints': 'person_keypoints_val2017_X_results.json',
    'kinetics': 'kinetics400_X_results.json',
}


def replaced(content: object, value: object) -> Iterator[object]:
    """The content with the whole and each part replaced in turn; five items stand for a list."""
    yield value
    if isinstance(content, dict | list):
        for key in range(len(content))[:5] if isinstance(content, list) else content:
            for part in replaced(content[key], value):
                changed = copy.copy(content)
                changed[key] = part
                yield changed


def issues(path: Path, ids: Path | None) -> list[str]:
    try:
        issues = check_file(path, ids=ids)[1]
    except ValueError as error:
        return [str(error)]
    return issues.lines()


@pytest.mark.parametrize('kind', list(SOUND))
def test_any_value_in_any_place_of_a_leaderboard_file(kind, tmp_path):
    path, sound = tmp_path / FILE_NAMES[kind], SOUND[kind]
    official = LIST if kind != 'kinetics' else {'a': {}}
    ids = write_json(tmp_path / 'ids.json', official)
    assert issues(write_json(path, sound), ids) == []
    for value in VALUES:
        for content in replaced(sound, value):
            found = issues(write_json(path, content), ids)
            ''.join(found).encode()  # what a terminal can be sent
            # No place takes any of these; another number or text may be right by chance.
            assert found or not isinstance(value, list | dict | None), content
            issues(path, None)


def test_lists_within_lists(tmp_path):
    """As deep as the parser lets pass, and deeper."""
    path = tmp_path / FILE_NAMES['detections']
    for depth in (*range(700, 1000), 5000):
        for key, title in (('score', 'score out of range'), ('image_id', 'image_id is no')):
            text = json.dumps([ENTRY | {'bbox': [0, 0, 1, 1], key: 'HERE'}])
            path.write_text(text.replace('"HERE"', '[' * depth + ']' * depth))
            (found, *_) = issues(path, None)
            assert title in found or 'nested too deeply' in found


def test_any_value_in_any_place_of_a_list(tmp_path):
    videos = {'a': {'annotations': {'label': 'yoga'}, 'subset': 'test'}}
    templates = [{'id': '1', 'template': 'Closing [something]'}]
    for sound, read in ((LIST, read_coco_images), (videos, read_videos), (templates, read_videos)):
        read(write_json(tmp_path / 'list.json', sound))
        for value in VALUES:
            for content in replaced(sound, value):
                path = write_json(tmp_path / 'list.json', content)
                try:
                    found = read(path)
                except ValueError as error:
                    assert str(path) in str(error)
                    continue
                if read is read_coco_images:
                    assert all(type(side) is int for pair in found.sizes.values() for side in pair)
                else:
                    assert all(isinstance(label, str | None) for label in found.values())


def test_any_value_in_any_place_of_saved_scores(tmp_path):
    sound = {'scores': {'a': [0.5, 1.5]}, 'class_order': 'kinetics400_official'}
    for value in (*VALUES, 10**400):
        for content in replaced(sound, value):
            path = write_json(tmp_path / 's.json', content)
            try:
                assert np.isfinite(read_video_scores(path).scores).all()
            except ValueError as error:
                assert str(path) in str(error)


def damaged(content: bytes, times: int) -> Iterator[bytes]:
    """The content with one to four bytes changed, and sometimes cut."""
    rng = random.Random(0)
    for _ in range(times):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        yield bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)


def test_damaged_pictures_and_archives(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(picture, format='PNG')
    (tmp_path / 'maps').mkdir()
    for content in damaged(picture.getvalue(), 200):
        (tmp_path / 'maps/ADE_test_00000001.png').write_bytes(content)
        issues(tmp_path / 'maps', None)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('ADE_test_00000001.png', picture.getvalue())
        file.writestr('x.json', '[]')
    for content in damaged(archive.getvalue(), 400):
        (tmp_path / 'x.zip').write_bytes(content)
        issues(tmp_path / 'x.zip', None)


def test_damaged_arrays(tmp_path):
    archive = io.BytesIO()
    np.savez(archive, ids=np.array(['a', 'b']), scores=np.ones((2, 3)))
    path = tmp_path / 's.npz'
    refused = 0
    for content in damaged(archive.getvalue(), 300):
        path.write_bytes(content)
        try:
            read_video_scores(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 150
