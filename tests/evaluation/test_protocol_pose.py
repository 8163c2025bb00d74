# SPDX-License-Identifier: Apache-2.0
"""The pose protocol on real photos and a real detector's boxes, written again from the sources."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS

from ..conftest import shared_dir
from .helpers import build_model, config_of, enter, shrink

# COCO's constants: how far annotators lie apart, per joint.
SIGMAS = np.array(
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
) / 1000  # fmt: skip


@pytest.fixture(scope='module')
def persons() -> Path:
    pytest.importorskip('mmpose')
    enter('pose')
    return shared_dir('data', 'coco_pose').resolve()


def pose_config(persons: Path, tmp_path: Path, boxes: str) -> Config:
    (tmp_path / 'coco').symlink_to(persons)
    config = config_of('pose/td_hm_uniformer_s_256x192.py', tmp_path, tmp_path, boxes=boxes)
    config.test_dataloader.dataset.ann_file = 'annotations/test_coco_4img.json'
    return shrink(config)


def test_pose_heatmaps_are_averaged_with_the_shifted_flip(persons, tmp_path):
    enter('pose')
    config = pose_config(persons, tmp_path, 'gt')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    torch.manual_seed(0)
    model = build_model(config)
    # mmpose puts joints of heatmaps that are nowhere positive outside of the image.
    torch.nn.init.constant_(model.head.final_layer.bias, 1.0)
    batch = pseudo_collate([dataset[0], dataset[1]])
    inputs = model.data_preprocessor(batch, training=False)['inputs']
    pairs = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]
    swap = list(range(17))
    for a, b in pairs:
        swap[a], swap[b] = b, a
    with torch.no_grad():
        heat = model.head(model.backbone(inputs)).double()
        flipped = model.head(model.backbone(inputs.flip(3))).double()[:, swap].flip(3)
        samples = model.test_step(batch)
    shifted = flipped.clone()
    shifted[..., 1:] = flipped[..., :-1]
    mean = ((heat + shifted) / 2).numpy()
    for index, sample in enumerate(samples):
        instance = sample.pred_instances
        centre = np.asarray(sample.metainfo['input_center'])
        scale = np.asarray(sample.metainfo['input_scale'])
        for joint in range(17):
            plane = mean[index, joint]
            y, x = np.unravel_index(plane.argmax(), plane.shape)
            place = np.array([x, y], float)
            # post_process 'default': a quarter pixel uphill, where there are neighbours.
            slope_x = plane[y, x + 1] - plane[y, x - 1] if 1 < x < 47 and y > 0 else 0.0
            slope_y = plane[y + 1, x] - plane[y - 1, x] if 1 < y < 63 and x > 0 else 0.0
            if any(0 < abs(slope) < 1e-5 for slope in (slope_x, slope_y)):
                continue  # Level ground of an untrained network: rounding decides.
            place += 0.25 * np.sign([slope_x, slope_y])
            expected = place * np.array([192, 256]) / [48, 64] / [192, 256] * scale
            expected = expected + centre - scale / 2
            assert np.abs(instance.keypoints[0, joint] - expected).max() < 0.05
            assert instance.keypoint_scores[0, joint] == pytest.approx(plane.max(), abs=1e-5)


def test_boxes_of_a_detector_or_annotated(persons, tmp_path):
    enter('pose')
    file = persons / 'person_detection_results/test_coco_det_AP_H_56.json'
    config = pose_config(persons, tmp_path, str(file))
    found = DATASETS.build(config.test_dataloader.dataset)
    expected = [d for d in json.loads(file.read_text()) if d['category_id'] == 1]
    assert len(found) == len(expected)
    x, y, w, h = expected[3]['bbox']
    assert found.get_data_info(3)['bbox'].tolist() == [pytest.approx([x, y, x + w, y + h])]
    assert float(found.get_data_info(3)['bbox_score'][0]) == pytest.approx(expected[3]['score'])

    config.test_dataloader.dataset.bbox_file = None
    annotated = DATASETS.build(config.test_dataloader.dataset)
    truth = json.loads((persons / 'annotations/test_coco_4img.json').read_text())['annotations']
    assert len(annotated) == sum(a['num_keypoints'] > 0 and not a['iscrowd'] for a in truth)


def test_where_the_usual_detections_go(persons, tmp_path):
    (tmp_path / 'coco').symlink_to(persons)
    with pytest.raises(ValueError, match=r'COCO_val2017_detections_AP_H_56.*--boxes gt'):
        config_of('pose/td_hm_uniformer_s_256x192.py', tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r'absent.json is not there'):
        config_of('pose/td_hm_uniformer_s_256x192.py', tmp_path, tmp_path, boxes='absent.json')


def with_copies(found: list[dict]) -> list[dict]:
    """Persons that a real detector is not unsure of, and for each a box slightly beside it."""
    rng = np.random.default_rng(0)
    boxes = [box for box in found if box['category_id'] == 1 and box['score'] > 0.25]
    copies = []
    for index, box in enumerate(boxes):
        x, y, w, h = box['bbox']
        shift = rng.normal(0, (0, 0.001, 0.004)[index % 3], 4) * (w, h, w, h)
        score = box['score'] * rng.uniform(0.8, 1)
        copies.append(box | {'bbox': (np.array([x, y, w, h]) + shift).tolist(), 'score': score})
    return boxes + copies


def oks(first: np.ndarray, second: np.ndarray, area: float) -> float:
    """Similarity of two persons, ``(17, 2)`` each; Ronchi and Perona, as COCO's evaluation."""
    squared = ((first - second) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area * (2 * SIGMAS) ** 2)).mean())


def cut_area(box: list[float]) -> float:
    """Pixels of the photo in the network's input: three wide, four high, a quarter around."""
    w, h = box[2:]
    width, height = (w, w / 0.75) if w > 0.75 * h else (0.75 * h, h)
    return width * 1.25 * height * 1.25


def test_detected_persons_are_scored_and_suppressed(persons, tmp_path):
    """Score: box times mean of the joints above 0.2; greedy suppression where OKS is above 0.9."""
    enter('pose')
    found = json.loads(
        (persons / 'person_detection_results/test_coco_det_AP_H_56.json').read_text()
    )
    boxes = with_copies(found)
    file = tmp_path / 'boxes.json'
    file.write_text(json.dumps(boxes))
    config = pose_config(persons, tmp_path, str(file))
    dataset = DATASETS.build(config.test_dataloader.dataset)
    assert len(dataset) == len(boxes) > 20
    config.model.head.deconv_out_channels = (32, 32, 32)
    model = build_model(config)
    torch.nn.init.constant_(model.head.final_layer.bias, 0.0)
    with torch.no_grad():
        heat = model.head(model.backbone(torch.randn(2, 3, 256, 192)))
        # Joints above and below 0.2.
        model.head.final_layer.weight *= 0.2 / heat.amax(dim=(2, 3)).median()
    annotations = persons / 'annotations/test_coco_4img.json'
    metric = METRICS.build(config.test_evaluator | {'ann_file': str(annotations)})
    metric.dataset_meta = dataset.metainfo
    people = defaultdict(list)
    for start in range(0, len(boxes), 16):
        batch = pseudo_collate([dataset[i] for i in range(start, min(start + 16, len(boxes)))])
        with torch.no_grad():
            samples = model.test_step(batch)
        metric.process(batch, [sample.to_dict() for sample in samples])
        for box, sample in zip(boxes[start:], samples, strict=False):
            joints = sample.pred_instances.keypoints[0]
            scores = sample.pred_instances.keypoint_scores[0]
            sure = scores[scores > 0.2]
            total = box['score'] * (sure.mean() if len(sure) else 0.0)
            people[box['image_id']].append((total, joints, scores, cut_area(box['bbox'])))
    metric.evaluate(len(boxes))
    written = json.loads((tmp_path / 'predictions.keypoints.json').read_text())

    unsure = [(person[2] <= 0.2).mean() for image in people.values() for person in image]
    assert 0.1 < np.mean(unsure) < 0.9
    kept = 0
    for image, rivals in people.items():
        rivals = sorted(rivals, key=lambda person: -person[0])
        survivors = []
        for person in rivals:
            close = [oks(other[1], person[1], (other[3] + person[3]) / 2) for other in survivors]
            assert not any(abs(value - 0.9) < 1e-4 for value in close)  # no near-ties here
            if all(value <= 0.9 for value in close):
                survivors.append(person)
        kept += len(survivors)
        ours = sorted((e for e in written if e['image_id'] == image), key=lambda e: -e['score'])
        assert len(ours) == len(survivors)
        for entry, (score, joints, scores, _) in zip(ours, survivors, strict=True):
            assert entry['score'] == pytest.approx(float(score), abs=1e-6)
            points = np.array(entry['keypoints']).reshape(17, 3)
            np.testing.assert_allclose(points[:, :2], joints, atol=1e-3)
            np.testing.assert_allclose(points[:, 2], scores, atol=1e-5)
    # Some copies were suppressed, others and all first ones were not.
    assert len(boxes) / 2 < kept < 0.95 * len(boxes)
