# SPDX-License-Identifier: Apache-2.0
"""The files are what COCO's, ADE20K's, Kinetics' and Something-Something's own tools expect."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from uniformer_mm.synth import TASKS, classification, detection, scene, video
from uniformer_mm.synth.coco import to_box, to_polygons, to_run_lengths
from uniformer_mm.synth.sample import sample_generator

SPLITS = ('train', 'val')


def _coco(world: Path, name: str, split: str) -> COCO:
    return COCO(str(world / 'coco' / 'annotations' / f'{name}_{split}2017.json'))


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('kind', ['bbox', 'segm', 'keypoints'])
def test_the_truth_scores_one(world: Path, split: str, kind: str) -> None:
    coco = _coco(world, 'person_keypoints' if kind == 'keypoints' else 'instances', split)
    results = []
    for annotation in coco.dataset['annotations']:
        if annotation['iscrowd']:
            continue
        result = {key: annotation[key] for key in ('image_id', 'category_id')} | {'score': 1.0}
        if kind == 'bbox':
            result['bbox'] = annotation['bbox']
        elif kind == 'segm':
            result['segmentation'] = coco.annToRLE(annotation)
        else:
            result['keypoints'] = annotation['keypoints']
        results.append(result)
    evaluation = COCOeval(coco, coco.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize('name', ['instances', 'person_keypoints'])
def test_coco_fields(world: Path, name: str) -> None:
    ids: list[int] = []
    files: set[str] = set()
    for split in SPLITS:
        coco = _coco(world, name, split)
        for image in coco.dataset['images']:
            pixels = cv2.imread(str(world / 'coco' / f'{split}2017' / image['file_name']))
            assert pixels.shape == (image['height'], image['width'], 3)
            assert int(Path(image['file_name']).stem) == image['id']
            files.add(f'{split}/{image["file_name"]}')
        for annotation in coco.dataset['annotations']:
            ids.append(annotation['id'])
            image = coco.imgs[annotation['image_id']]
            x, y, w, h = annotation['bbox']
            assert w > 0 and h > 0 and x >= 0 and y >= 0
            assert x + w <= image['width'] and y + h <= image['height']
            assert annotation['category_id'] in coco.cats
            decoded = coco.annToMask(annotation)
            assert decoded.sum() == pytest.approx(annotation['area'], rel=0.05, abs=8)
            box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(decoded)))
            assert np.abs(box - annotation['bbox']).max() <= 1.5
    assert len(set(ids)) == len(ids)
    assert files, 'no images'


def test_the_shapes_masks_are_what_a_painter_leaves(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paints every picture again and asks each pixel which shape came last."""
    crowds = 0
    for index in range(60):
        layers: list[tuple[np.ndarray, float]] = []
        monkeypatch.setattr(detection, 'paint', lambda _, alpha, __, out=layers: out.append(alpha))
        rng = sample_generator(0, 'det', 'train', index)
        record = detection.write_sample(tmp_path, 'train', index, rng)
        annotations = record['annotations']
        crowd = annotations[0]['iscrowd']
        crowds += crowd
        # The small shapes of a crowd come first and are one instance.
        first = len(layers) - len(annotations) + 1 if crowd else 0
        instances = [max(0, i - first + 1) if crowd else i for i in range(len(layers))]
        owner = np.full(layers[0].shape, -1)
        for instance, alpha in zip(instances, layers, strict=True):
            owner[alpha >= 0.5] = instance
        for instance, annotation in enumerate(annotations):
            truth = (owner == instance).astype(np.uint8)
            rles = coco_mask.frPyObjects(annotation['segmentation'], *truth.shape)
            mask = coco_mask.decode(rles if crowd and instance == 0 else coco_mask.merge(rles))
            overlap = (truth & mask).sum() / (truth | mask).sum()
            assert overlap == 1.0 if annotation['iscrowd'] else overlap > 0.95
            assert annotation['area'] == truth.sum()
            assert annotation['bbox'] == to_box(truth.astype(bool))
    assert crowds >= 2


def test_masks_lie_on_the_shapes(world: Path) -> None:
    """Shapes are saturated and the background is grey: the pixels themselves know the masks."""
    coco = _coco(world, 'instances', 'train')
    for image in coco.dataset['images']:
        pixels = cv2.imread(str(world / 'coco' / 'train2017' / image['file_name']))
        saturation = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[..., 1]
        union = np.zeros(saturation.shape, np.uint8)
        for annotation in coco.imgToAnns[image['id']]:
            union |= coco.annToMask(annotation)
        outside = cv2.dilate(union, np.ones((7, 7))) == 0
        inside = cv2.erode(union, np.ones((5, 5))) == 1
        assert np.percentile(saturation[outside], 99) < 90
        # A pale second colour of a texture may reach down to this.
        assert np.percentile(saturation[inside], 10) > np.percentile(saturation[outside], 90)


def test_polygons_keep_holes_and_run_lengths_are_exact() -> None:
    mask = np.zeros((60, 80), bool)
    mask[5:45, 10:60] = True
    mask[15:25, 20:30] = False
    mask[15:35, 40:50] = False
    mask[50:58, 2:30] = True
    mask[48, 70] = True  # a speck
    rles = coco_mask.frPyObjects(to_polygons(mask), *mask.shape)
    assert len(rles) == 2
    decoded = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
    assert not decoded[17:23, 22:28].any() and not decoded[17:33, 42:48].any()
    assert (decoded & mask).sum() / (decoded | mask).sum() > 0.97
    rng = np.random.default_rng(0)
    for noise in (rng.random((7, 5)) > 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        run_lengths = to_run_lengths(noise)
        rle = coco_mask.frPyObjects(run_lengths, *noise.shape)
        assert (coco_mask.decode(rle) == noise).all()


def test_person_detections(world: Path) -> None:
    coco = _coco(world, 'person_keypoints', 'val')
    path = world / 'coco' / 'person_detection_results'
    path /= 'COCO_val2017_detections_AP_H_56_person.json'
    detections = json.loads(path.read_text())
    for detection_ in detections:
        image = coco.imgs[detection_['image_id']]
        x, y, w, h = detection_['bbox']
        assert x >= 0 and y >= 0 and w > 0 and h > 0
        assert x + w <= image['width'] + 0.01 and y + h <= image['height'] + 0.01
        assert detection_['category_id'] == 1 and 0 < detection_['score'] < 1
    evaluation = COCOeval(coco, coco.loadRes(detections), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # Jittered, so neither perfect nor useless.
    assert evaluation.stats[1] > 0.95 and 0.5 < evaluation.stats[0] < 0.99


@pytest.mark.parametrize(('split', 'folder'), [('train', 'training'), ('val', 'validation')])
def test_ade(world: Path, split: str, folder: str) -> None:
    root = world / 'ade' / 'ADEChallengeData2016'
    images = sorted((root / 'images' / folder).iterdir())
    count = TASKS['seg'].counts['tiny'][split]
    assert [p.name for p in images] == [f'ADE_{split}_{i:08d}.jpg' for i in range(1, count + 1)]
    seen = np.zeros(256, int)
    for image in images:
        labels = cv2.imread(
            str(root / 'annotations' / folder / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED
        )
        assert labels.dtype == np.uint8
        assert labels.shape == cv2.imread(str(image)).shape[:2]
        seen += np.bincount(labels.ravel(), minlength=256)
    assert (seen[1 : 1 + len(scene.CLASSES)] > 0).all()
    assert not seen[1 + len(scene.CLASSES) :].any()
    assert seen[1:].sum() > 0.9 * seen.sum()
    if split == 'train':
        table = (root / 'objectInfo150.txt').read_text().splitlines()[1:]
        for label, line in enumerate(table, 1):
            index, ratio, _, name = line.split('\t')
            assert (int(index), name) == (label, scene.CLASSES[label - 1])
            assert float(ratio) == pytest.approx(seen[label] / seen.sum(), abs=1e-4)


def test_seg_labels_lie_on_their_regions(world: Path) -> None:
    """Sky is blue, leaves are green, ceilings are pale: each image, each pixel's own colour."""
    root = world / 'ade' / 'ADEChallengeData2016'
    for path in sorted((root / 'images' / 'training').iterdir()):
        blue, _, red = cv2.split(cv2.imread(str(path)).astype(float))
        labels = cv2.imread(str(root / 'annotations' / 'training' / f'{path.stem}.png'), 0)
        rules = {
            'sky': blue > red + 10,
            'road': abs(blue - red) < 60,
            'ceiling': np.minimum(blue, red) > 180,
            'floor': red > blue,
        }
        for name, rule in rules.items():
            region = cv2.erode(
                (labels == 1 + scene.CLASSES.index(name)).astype(np.uint8), np.ones((5, 5))
            ).astype(bool)
            if region.any():
                assert rule[region].mean() > 0.97, (path.name, name)


@pytest.mark.parametrize('split', SPLITS)
def test_kinetics(world: Path, split: str) -> None:
    decord = pytest.importorskip('decord', reason='decord reads the videos in mmaction2')
    root = world / 'kinetics400'
    lines = (root / f'kinetics400_{split}_list_videos.txt').read_text().splitlines()
    assert len(lines) == TASKS['video'].counts['tiny'][split]
    names = (root / 'label_map_k400.txt').read_text().splitlines()
    assert names == sorted(names) == list(video.KINETICS_CLASSES)
    listed = set()
    for line in lines:
        relative, label = line.split()
        listed.add(root / f'videos_{split}' / relative)
        assert relative.split('/')[0] == names[int(label)]
        frames = decord.VideoReader(str(root / f'videos_{split}' / relative))
        capture = cv2.VideoCapture(str(root / f'videos_{split}' / relative))
        assert len(frames) == int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        assert 36 <= len(frames) <= 48 and frames.get_avg_fps() == 25
        assert min(frames[0].shape[:2]) == 128
    assert listed == set((root / f'videos_{split}').rglob('*.mp4'))


def test_something_something(world: Path) -> None:
    root = world / 'sthv2'
    listed: list[str] = []
    for split in SPLITS:
        lines = (root / f'sthv2_{split}_list_rawframes.txt').read_text().splitlines()
        assert len(lines) == TASKS['ssv2'].counts['tiny'][split]
        for line in lines:
            clip_id, num_frames, label = line.split()
            listed.append(clip_id)
            expected = [f'img_{i:05d}.jpg' for i in range(1, int(num_frames) + 1)]
            assert sorted(p.name for p in (root / 'rawframes' / clip_id).iterdir()) == expected
            assert 0 <= int(label) < len(video.SSV2_CLASSES)
    assert sorted(listed) == sorted(path.name for path in (root / 'rawframes').iterdir())
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize('split', SPLITS)
def test_imagenet(world: Path, split: str) -> None:
    folders = sorted(path for path in (world / 'imagenet' / split).iterdir())
    assert tuple(path.name for path in folders) == classification.CLASSES
    counts = [len(list(folder.glob('*.JPEG'))) for folder in folders]
    assert counts == [TASKS['cls'].counts['tiny'][split] // len(folders)] * len(folders)
    for folder in folders:
        for path in folder.iterdir():
            height, width = cv2.imread(str(path)).shape[:2]
            assert {height, width} <= {96, 112, 128}
