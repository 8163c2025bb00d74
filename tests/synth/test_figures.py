# SPDX-License-Identifier: Apache-2.0
"""Keypoints lie on their joints, sides are told apart, and visibility flags mean COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from uniformer_mm.synth import figure, pose
from uniformer_mm.synth.sample import sample_generator

_INDEX = {name: i for i, name in enumerate(figure.KEYPOINTS)}
_UPPER_PARTS = (('shoulder', 'elbow'), ('hip', 'knee'))


@pytest.fixture(scope='module')
def people(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[np.ndarray, np.ndarray, dict]]:
    """Picture, keypoints ``(17, 3)`` and record of some fifty persons."""
    root = tmp_path_factory.mktemp('pose')
    found = []
    for index in range(44):
        record = pose.write_sample(
            root, 'train', index, sample_generator(0, 'pose', 'train', index)
        )
        pixels = cv2.imread(str(root / 'coco' / 'train2017' / record['file_name']))
        for annotation in record['annotations']:
            keypoints = np.array(annotation['keypoints'], float).reshape(17, 3)
            found.append((pixels, keypoints, annotation))
    assert len(found) > 44
    return found


def _joint(keypoints: np.ndarray, name: str) -> np.ndarray:
    return keypoints[_INDEX[name]]


def test_coco_has_the_official_names(world: Path) -> None:
    path = world / 'coco' / 'annotations' / 'person_keypoints_val2017.json'
    (person,) = json.loads(path.read_text())['categories']
    assert (person['id'], person['name']) == (1, 'person')
    left = [name for name in person['keypoints'] if name.startswith('left_')]
    assert len(person['keypoints']) == 17 and len(left) == 8
    # COCO's order: each left joint is followed by its right one.
    for name in left:
        index = person['keypoints'].index(name)
        assert person['keypoints'][index + 1] == name.replace('left', 'right')
    named = [[person['keypoints'][i - 1] for i in pair] for pair in person['skeleton']]
    assert len(named) == 19 and ['left_ankle', 'left_knee'] in named
    assert ['left_shoulder', 'right_shoulder'] in named


def test_limbs_have_the_length_of_limbs(people: list) -> None:
    """Upper arm, forearm, thigh and shin of every person, from the annotation: 17 16 22 21."""
    limbs = (('shoulder', 'elbow'), ('elbow', 'wrist'), ('hip', 'knee'), ('knee', 'ankle'))
    checked = 0
    for _, keypoints, _ in people:
        if (keypoints[:, 2] == 0).any():
            continue
        for side in ('left', 'right'):
            lengths = [
                np.linalg.norm(
                    _joint(keypoints, f'{side}_{a}')[:2] - _joint(keypoints, f'{side}_{b}')[:2]
                )
                for a, b in limbs
            ]
            assert np.allclose(
                np.array(lengths) / sum(lengths), np.array([17, 16, 22, 21]) / 76, atol=0.01
            )
            checked += 1
    assert checked > 50


def test_a_person_faces_the_viewer(people: list) -> None:
    """With the head up, the left side is on the right of the picture: no mirrored figure."""
    for _, keypoints, _ in people:
        if (keypoints[[5, 6, 11, 12], 2] == 0).any():
            continue
        across = _joint(keypoints, 'left_shoulder') - _joint(keypoints, 'right_shoulder')
        up = keypoints[5:7].mean(0) - keypoints[11:13].mean(0)
        assert up[0] * across[1] - up[1] * across[0] > 0


def test_each_side_has_its_colour(people: list) -> None:
    """Seen in the middle, upper arm and thigh of a side match; those of the two sides do not."""
    same, opposite = [], []
    for pixels, keypoints, _ in people:
        if (keypoints[5:, 2] != 2).any():
            continue
        colours = {}
        for side in ('left', 'right'):
            for part, (a, b) in zip(('arm', 'leg'), _UPPER_PARTS, strict=True):
                middle = (_joint(keypoints, f'{side}_{a}') + _joint(keypoints, f'{side}_{b}')) / 2
                x, y = np.rint(middle[:2]).astype(int)
                hsv = cv2.cvtColor(pixels[y - 1 : y + 2, x - 1 : x + 2], cv2.COLOR_BGR2HSV)
                colours[side, part] = hsv[..., 0].mean() * np.pi / 90  # hue in radians
        for part, other, distances in (
            (('left', 'arm'), ('left', 'leg'), same),
            (('right', 'arm'), ('right', 'leg'), same),
            (('left', 'arm'), ('right', 'arm'), opposite),
            (('left', 'leg'), ('right', 'leg'), opposite),
        ):
            distances.append(abs(np.angle(np.exp(1j * (colours[part] - colours[other])))))
    assert len(same) > 40
    assert np.median(same) < 0.15 and np.median(opposite) > 1.2
    assert np.mean(np.array(same) < 0.3) > 0.9 and np.mean(np.array(opposite) > 0.8) > 0.9


def test_eyes_are_dark_where_they_are_seen(people: list) -> None:
    checked = 0
    for pixels, keypoints, _ in people:
        for x, y, flag in keypoints[1:3]:
            if flag == 2:
                x, y = np.rint([x, y]).astype(int)
                assert pixels[y, x].max() < 130
                checked += 1
    assert checked > 60


def test_flags(people: list) -> None:
    flags = np.array([keypoints[:, 2] for _, keypoints, _ in people])
    assert set(np.unique(flags)) == {0, 1, 2}
    assert (flags == 2).mean() > 0.85 and (flags == 1).any() and (flags == 0).any()
    for pixels, keypoints, annotation in people:
        assert annotation['num_keypoints'] == (keypoints[:, 2] > 0).sum() >= 5
        assert not keypoints[keypoints[:, 2] == 0].any()
        height, width = pixels.shape[:2]
        labelled = keypoints[keypoints[:, 2] > 0]
        assert (labelled[:, :2] >= 0).all() and (labelled[:, :2] <= (width, height)).all()


def test_what_is_covered_is_not_called_visible(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Records every layer of paint: a seen joint is one that its own limbs cover last."""
    layers: list[np.ndarray] = []
    monkeypatch.setattr(figure, 'paint', lambda image, alpha, surface: layers.append(alpha))
    monkeypatch.setattr(pose, 'paint', lambda image, alpha, surface: layers.append(alpha))
    hidden = occluded = 0
    for index in range(60):
        layers.clear()
        record = pose.write_sample(
            tmp_path, 'val', index, sample_generator(3, 'pose', 'val', index)
        )
        people, parts = record['annotations'], 15
        assert len(layers) - parts * len(people) in (0, 1)
        for number, annotation in enumerate(people):
            later = np.zeros(layers[0].shape, bool)
            for alpha in layers[parts * (number + 1) :]:
                later |= alpha >= 0.5
            occluded += later.any() and len(layers) > parts * len(people)
            for x, y, flag in np.array(annotation['keypoints']).reshape(17, 3):
                column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
                if flag and 0 < column < later.shape[1] - 1 and 0 < row < later.shape[0] - 1:
                    # Coordinates are rounded to a tenth: look at what is surely covered.
                    covered = later[row - 1 : row + 2, column - 1 : column + 2]
                    assert not (flag == 2 and covered.all())
                    hidden += flag == 1 and bool(covered.any())
    assert hidden >= 5 and occluded >= 10
