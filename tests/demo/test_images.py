# SPDX-License-Identifier: Apache-2.0
"""What the demo draws, on weights that are not trained: the truth is that of the files."""

from __future__ import annotations

import json

import cv2
import demo_images
import numpy as np
import pytest
from PIL import Image

from uniformer_mm.inference import load_predictor
from uniformer_mm.inference.clips import read_frames

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def opened(untrained):
    """Predictor and config of a task."""

    def make(task: str):
        model = untrained(task)
        config = model.load()
        return load_predictor(config, model.weights, device='cpu'), config

    return make


@pytest.mark.parametrize('task', ['det', 'seg', 'pose', 'video', 'cls'])
def test_a_sheet_of_each_task(untrained, tmp_path, task) -> None:
    model = untrained(task)
    files = demo_images.draw(task, str(model.config), str(model.weights), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.name for one in files)
    sheet = np.asarray(Image.open(files[0]))
    assert sheet.std() > 20
    if task == 'video':
        frames = list(read_frames(files[1]))
        assert len(frames) > 50
        assert min(frame.std() for frame in frames) > 20


def coco(world, name: str) -> tuple[dict, dict]:
    """Annotations by image, and images by file name."""
    content = json.loads((world / 'coco/annotations' / name).read_text())
    by_image: dict[int, list[dict]] = {}
    for one in content['annotations']:
        by_image.setdefault(one['image_id'], []).append(one)
    return by_image, {one['file_name']: one['id'] for one in content['images']}


def test_objects_are_those_of_the_file(opened, world) -> None:
    annotations, images = coco(world, 'instances_val2017.json')
    for truth, found in demo_images.det_pairs(*opened('det')):
        marked = [one for one in annotations[images[truth.name]] if not one['iscrowd']]
        x, y, w, h = np.array([one['bbox'] for one in marked]).T
        np.testing.assert_allclose(truth.boxes, np.stack([x, y, x + w, y + h], axis=1), atol=1e-3)
        np.testing.assert_allclose(
            truth.masks.sum((1, 2)), [one['area'] for one in marked], rtol=0.1, atol=12
        )
        assert truth.image is found.image
        assert len(found.boxes)


def test_label_maps_are_those_of_the_files(opened, world) -> None:
    folder = world / 'ade/ADEChallengeData2016/annotations/validation'
    for truth, found in demo_images.seg_pairs(*opened('seg')):
        stored = cv2.imread(str(folder / f'{truth.name[:-4]}.png'), cv2.IMREAD_UNCHANGED)
        # 0 is "other"; the synthetic classes are ADE20K's first seven.
        assert (truth.labels == np.where(stored == 0, 255, stored.astype(int) - 1)).all()
        assert found.labels.shape == truth.labels.shape
        assert len(found.colors) == len(found.classes) == 7


def test_skeletons_are_all_there_and_nowhere_near_the_corner(opened, world) -> None:
    annotations, images = coco(world, 'person_keypoints_val2017.json')
    (path,) = (world / 'coco/person_detection_results').iterdir()
    boxes = [one for one in json.loads(path.read_text()) if one['score'] >= 0.3]
    for truth, found in demo_images.pose_pairs(*opened('pose')):
        persons = annotations[images[truth.name]]
        stored = np.array([one['keypoints'] for one in persons]).reshape(-1, 17, 3)
        np.testing.assert_allclose(truth.keypoints, stored[..., :2], atol=1e-3)
        assert ((truth.keypoint_scores > 0) == (stored[..., 2] > 0)).all()
        expected = [one['bbox'] for one in boxes if one['image_id'] == images[truth.name]]
        assert len(found.keypoints) == len(found.boxes) == len(expected) > 0
        np.testing.assert_allclose(found.boxes[:, :2], np.array(expected)[:, :2], atol=1e-3)


@pytest.mark.parametrize('task', ['video', 'cls'])
def test_the_true_class_is_the_folder(opened, world, task) -> None:
    predictor, config = opened(task)
    results = demo_images.classified(predictor, config)
    assert len({one.truth for one in results}) > 1
    for one in results:
        folders = {path.parent.name for path in world.rglob(one.name)}
        assert one.classes[one.truth] in folders
        assert np.isclose(one.probabilities.sum(), 1, atol=1e-4)
