# SPDX-License-Identifier: Apache-2.0
"""Each toolbox's own data set class reads the synthetic world as it reads the real data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from uniformer_mm.synth import TASKS, chance_level, classification, detection, scene, video


def _import(name: str) -> ModuleType:
    # A toolbox may be there and still fail to import (mmaction2 1.2.0 as released does).
    return pytest.importorskip(name, reason=f'{name} cannot be imported', exc_type=ImportError)


def test_mmdet(world: Path) -> None:
    datasets = _import('mmdet.datasets')
    importlib.import_module('mmdet.datasets.transforms')
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True, 'poly2mask': False},
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = datasets.CocoDataset(
            data_root=str(world / 'coco'),
            ann_file='annotations/instances_train2017.json',
            data_prefix={'img': 'train2017/'},
            metainfo={'classes': detection.CLASSES},
            filter_cfg={'filter_empty_gt': True, 'min_size': 32},
            pipeline=pipeline,
        )
        assert len(dataset) == TASKS['det'].counts['tiny']['train']
        for sample in dataset:
            polygons = sample['gt_masks'].masks
            assert len(polygons) == len(sample['gt_bboxes']) == len(sample['gt_bboxes_labels']) > 0
            for box, mask, ignored in zip(
                sample['gt_bboxes'].numpy(), polygons, sample['gt_ignore_flags'], strict=True
            ):
                points = np.concatenate(mask).reshape(-1, 2)
                if not ignored:
                    assert np.abs(np.r_[points.min(0), points.max(0)] - box).max() < 1.5


def test_mmseg(world: Path) -> None:
    datasets = _import('mmseg.datasets')
    root = world / 'ade' / 'ADEChallengeData2016'
    for metainfo in (None, {'classes': scene.CLASSES}):
        with DefaultScope.overwrite_default_scope('mmseg'):
            dataset = datasets.ADE20KDataset(
                data_root=str(root),
                data_prefix={
                    'img_path': 'images/validation',
                    'seg_map_path': 'annotations/validation',
                },
                reduce_zero_label=True,
                metainfo=metainfo,
                pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}],
            )
            assert len(dataset) == TASKS['seg'].counts['tiny']['val']
            assert tuple(dataset.metainfo['classes'][: len(scene.CLASSES)]) == scene.CLASSES
            for sample in dataset:
                labels = cv2.imread(sample['seg_map_path'], cv2.IMREAD_UNCHANGED)
                # uint8: label 0 ("other") wraps to 255, which every loss and metric ignores.
                assert (sample['gt_seg_map'] == labels - np.uint8(1)).all()


@pytest.mark.parametrize('boxes', ['true', 'detected'])
def test_mmpose(world: Path, boxes: str) -> None:
    datasets = _import('mmpose.datasets')
    metrics = _import('mmpose.evaluation.metrics')
    coco = world / 'coco'
    ann_file = coco / 'annotations' / 'person_keypoints_val2017.json'
    bbox_file = coco / 'person_detection_results' / 'COCO_val2017_detections_AP_H_56_person.json'
    with DefaultScope.overwrite_default_scope('mmpose'):
        dataset = datasets.CocoDataset(
            data_root=str(coco),
            ann_file='annotations/person_keypoints_val2017.json',
            data_prefix={'img': 'val2017/'},
            data_mode='topdown',
            test_mode=True,
            bbox_file=str(bbox_file) if boxes == 'detected' else None,
            pipeline=[{'type': 'LoadImage'}, {'type': 'GetBBoxCenterScale'}],
        )
        people = json.loads(ann_file.read_text())['annotations']
        if boxes == 'detected':
            assert len(dataset) == len(json.loads(bbox_file.read_text())) >= len(people)
            assert 0 < dataset[0]['bbox_score'][0] < 1
            return
        assert len(dataset) == len(people)
        metric = metrics.CocoMetric(ann_file=str(ann_file))
        metric.dataset_meta = dataset.metainfo
        for i in range(len(dataset)):
            sample = dataset[i]
            guess = {
                'keypoints': sample['keypoints'],
                'keypoint_scores': np.ones((1, 17), np.float32),
                'bboxes': sample['bbox'],
                'bbox_scores': sample['bbox_score'],
            }
            identity = {key: sample[key] for key in ('id', 'img_id')}
            metric.process([], [{**identity, 'pred_instances': guess, 'gt_instances': guess}])
        result = metric.evaluate(len(dataset))
        assert result['coco/AP'] == pytest.approx(1.0, abs=1e-9)
        assert set(result) >= {k for k in chance_level('pose', world) if k.startswith('coco/')}


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmaction2(world: Path, split: str) -> None:
    datasets = _import('mmaction.datasets')
    frames = [{'type': 'SampleFrames', 'clip_len': 8, 'frame_interval': 4, 'num_clips': 1}]
    root = world / 'kinetics400'
    with DefaultScope.overwrite_default_scope('mmaction'):
        clips = datasets.VideoDataset(
            ann_file=str(root / f'kinetics400_{split}_list_videos.txt'),
            data_prefix={'video': str(root / f'videos_{split}')},
            pipeline=[{'type': 'DecordInit'}, *frames, {'type': 'DecordDecode'}],
        )
        assert len(clips) == TASKS['video'].counts['tiny'][split]
        labels = [sample['label'] for sample in clips]
        assert set(labels) == set(range(len(video.KINETICS_CLASSES)))
        assert len(clips[0]['imgs']) == 8 and min(clips[0]['imgs'][0].shape[:2]) == 128
        clips = datasets.RawframeDataset(
            ann_file=str(world / 'sthv2' / f'sthv2_{split}_list_rawframes.txt'),
            data_prefix={'img': str(world / 'sthv2' / 'rawframes')},
            filename_tmpl='img_{:05}.jpg',
            pipeline=[*frames, {'type': 'RawFrameDecode'}],
        )
        assert len(clips) == TASKS['ssv2'].counts['tiny'][split]
        labels = [sample['label'] for sample in clips]
        assert set(labels) == set(range(len(video.SSV2_CLASSES)))
        assert len(clips[0]['imgs']) == 8


def test_mmpretrain(world: Path) -> None:
    datasets = _import('mmpretrain.datasets')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = [{'type': 'LoadImageFromFile'}]
        custom = datasets.CustomDataset(
            data_root=str(world / 'imagenet'), data_prefix='val', pipeline=pipeline
        )
        imagenet = datasets.ImageNet(
            data_root=str(world / 'imagenet'),
            split='val',
            metainfo={'classes': classification.CLASSES},
            pipeline=pipeline,
        )
        assert tuple(custom.CLASSES) == tuple(imagenet.CLASSES) == classification.CLASSES
        assert len(custom) == len(imagenet) == TASKS['cls'].counts['tiny']['val']
        for sample in imagenet:
            folder = Path(sample['img_path']).parent.name
            assert classification.CLASSES[sample['gt_label']] == folder
            assert sample['img'].shape[2] == 3
