# SPDX-License-Identifier: Apache-2.0
"""Predictions made from real annotations, the way the toolboxes write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_api

from uniformer_mm.cli import main

from ..conftest import shared_dir


@pytest.fixture
def run(capsys):
    """Run a command; hand back its status and what it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return call


@pytest.fixture(scope='session')
def instances() -> Path:
    """Boxes and masks of 60 real photos."""
    return shared_dir('data', 'coco', 'annotations', 'instances_val2017.json')


@pytest.fixture(scope='session')
def persons() -> Path:
    """Keypoints of 40 real photos."""
    return shared_dir('data', 'coco_pose', 'annotations', 'person_keypoints_val2017.json')


@pytest.fixture(scope='session')
def ade() -> Path:
    """Three real ADE20K pairs."""
    return shared_dir('data', 'ade', 'ADEChallengeData2016')


def detections(annotations: Path, *, masks: bool) -> list[dict]:
    """Imperfect detections in mmdet's form: shifted, of random confidence, some missing.

    Masks come with boxes beside them, as mmdet writes them.
    """
    content = json.loads(annotations.read_text())
    sizes = {image['id']: (image['height'], image['width']) for image in content['images']}
    rng = np.random.default_rng(0)
    found = []
    for item in content['annotations']:
        if item['iscrowd'] or rng.random() < 0.2:
            continue
        height, width = sizes[item['image_id']]
        x, y, w, h = item['bbox']
        shift = rng.normal(0, 0.08, 2) * (w, h)
        left, top = np.clip([x + shift[0], y + shift[1]], 0, [width - 1, height - 1])
        box = [left, top, min(w, width - left), min(h, height - top)]
        entry = {
            'image_id': item['image_id'],
            'bbox': [float(value) for value in box],
            'score': float(rng.random()),
            'category_id': item['category_id'],
        }
        if masks:
            polygons = mask_api.frPyObjects(item['segmentation'], height, width)
            mask = mask_api.decode(mask_api.merge(polygons))
            moved = np.roll(mask, tuple(rng.integers(-3, 4, 2)), (0, 1))
            rle = mask_api.encode(np.asfortranarray(moved))
            entry['segmentation'] = {'size': rle['size'], 'counts': rle['counts'].decode()}
        found.append(entry)
    return found


def poses(annotations: Path) -> list[dict]:
    """Imperfect poses in mmpose's form: confidences in place of v, and boxes."""
    rng = np.random.default_rng(0)
    found = []
    for item in json.loads(annotations.read_text())['annotations']:
        if not item['num_keypoints']:
            continue
        points = np.array(item['keypoints'], float).reshape(17, 3)
        points[:, :2] += rng.normal(0, 0.02, (17, 2)) * max(item['bbox'][2:])
        points[:, 2] = rng.random(17)
        found.append(
            {
                'bbox': item['bbox'],
                'category_id': 1,
                'image_id': item['image_id'],
                'keypoints': points.reshape(-1).tolist(),
                'score': float(rng.random()),
            }
        )
    return found


def write_json(path: Path, value: object) -> Path:
    """Write a JSON file; returns its path."""
    path.write_text(json.dumps(value))
    return path
