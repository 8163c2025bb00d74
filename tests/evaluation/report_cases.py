# SPDX-License-Identifier: Apache-2.0
"""Finished tests of the five tasks on real pictures, with made-up predictions, for the reports."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from uniformer_mm.evaluation.record import write_record
from uniformer_mm.evaluation.running.protocol import Choices, build_config
from uniformer_mm.evaluation.running.store import PredictionStore, Stored
from uniformer_mm.evaluation.running.worker import CONFIG
from uniformer_mm.labels import class_names

from ..conftest import ROOT, shared_dir
from .helpers import make_record

ALPHABETICAL = 'kinetics400_alphabetical'


@dataclass
class Case:
    """What a test left, before it is written.

    Attributes:
        config: Config that was tested.
        stored: Its samples.
        facts: Fields of the record.
        class_order: Order of Kinetics' classes.
        files: Texts of further files in the folder.
        truth: What the test knows about the predictions it made up.
    """

    config: str
    stored: list[Stored]
    facts: dict[str, Any]
    class_order: str = ''
    files: dict[str, str] = field(default_factory=dict)
    truth: Any = None


def finish(folder: Path, data: Path, case: Case) -> Path:
    """A folder as reproduce leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    task = case.config.split('/')[0]
    boxes = {'boxes': 'gt'} if task == 'pose' else {}
    test = build_config(ROOT / 'configs' / case.config, task, Choices(data=data, **boxes), folder)
    test.test_cfg.identity = {'class order': case.class_order}
    test.dump(folder / CONFIG)
    for name, text in case.files.items():
        (folder / name).write_text(text)
    store = PredictionStore(folder, {})
    store.add(case.stored)
    store.close()
    facts = {
        'row': 'row/under_test', 'task': task, 'config': case.config,
        'class_order': case.class_order, 'classes': [], 'versions': {'torch': '2'}, 'seconds': 1.0,
    }  # fmt: skip
    write_record(make_record(len(case.stored), **facts | case.facts), folder)
    return folder


def chances_of(guess: int, share: float, classes: int) -> torch.Tensor:
    """Probabilities with one class at ``share`` and the others equal."""
    chances = torch.full((classes,), (1 - share) / (classes - 1))
    chances[guess] = share
    return chances


def photos(root: Path) -> Case:
    """Imagenette: ten classes, every fifth photo is taken for the next class."""
    source = shared_dir('data', 'imagenette')
    names = list(json.loads((source / 'classes.json').read_text()).items())
    stored, truth = [], []
    for label, (folder, _) in enumerate(names):
        for path in sorted((source / 'val' / folder).iterdir())[:8]:
            index = len(stored)
            guess = (label + (index % 5 == 3)) % len(names)
            chances = chances_of(guess, 0.3 + 0.008 * index, len(names))
            result = {'pred_score': chances, 'gt_label': torch.tensor([label])}
            key = '/'.join(path.parts[-2:])
            stored.append(Stored(index, key, str(path), 0.001 * (index % 9 + 5), [result]))
            truth.append((label, guess))
    share = 100 * np.mean([label == guess for label, guess in truth])
    facts = {
        'metrics': {'top1': round(float(share), 2), 'top5': 100.0},
        'classes': [name for _, name in names],
        'published': {'top1': 80.0},
    }
    return Case('cls/uniformer_s_in1k.py', stored, facts, truth=truth)


CLIPS = {
    'clean_and_jerk.mp4': 'clean and jerk',
    'skateboarding.mp4': 'skateboarding',
    'ta_chi.mp4': 'tai chi',
    'mmaction2_demo.mp4': 'arm wrestling',
}


def clips(root: Path) -> Case:
    """Kinetics clips and a folder of frames; one clip and the frames are taken for abseiling."""
    source = shared_dir('data', 'clips', 'videos')
    names = class_names(ALPHABETICAL)
    frames = root / 'frames/ta_chi'
    frames.mkdir(parents=True)
    capture = cv2.VideoCapture(str(source / 'ta_chi.mp4'))
    for number in range(8):
        cv2.imwrite(str(frames / f'img_{number + 1:05}.jpg'), capture.read()[1])
    paths = {source / name: label for name, label in CLIPS.items()} | {frames: 'tai chi'}
    stored = []
    for index, (path, label) in enumerate(paths.items()):
        wrong = index >= 3
        guess = names.index('abseiling' if wrong else label)
        logits = torch.zeros(3, len(names))
        logits[:, guess] = 6 + index
        result = {'logits': logits.numpy(), 'label': names.index(label)}
        key = '/'.join(path.parts[-2:])
        stored.append(Stored(index, key, str(path), 0.5 + 0.1 * index, [result]))
    facts = {
        'metrics': {'top1': 60.0, 'top5': 100.0, 'top1_prob': 60.0},
        'published': {'top1': 80.8},
        'limit': len(stored),
        'intervals': {'top1': (23.07, 88.24)},
        'interval_method': "Wilson's score interval over files",
    }
    return Case('video/uniformer_s_16x4_k400.py', stored, facts, class_order=ALPHABETICAL)


def label_maps(root: Path) -> Case:
    """Three ADE20K photos: the truth, of which a growing part is taken for one class."""
    source = shared_dir('data', 'ade', 'ADEChallengeData2016').resolve()
    (root / 'ade').mkdir()
    (root / 'ade/ADEChallengeData2016').symlink_to(source)
    stored, correct = [], {}
    photos = sorted((root / 'ade/ADEChallengeData2016/images/validation').iterdir())
    for index, photo in enumerate(photos):
        file = source / 'annotations/validation' / f'{photo.stem}.png'
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        truth = np.where(labels == 0, 255, labels - 1).astype(np.uint8)
        guess = np.where(truth == 255, 0, truth).astype(np.uint8)
        guess[:, : guess.shape[1] * index // 4] = 7
        counted = truth != 255
        pairs = truth[counted].astype(int) * 150 + guess[counted]
        cells, counts = np.unique(pairs, return_counts=True)
        correct[photo.name] = np.mean(guess[counted] == truth[counted])
        result = {
            'cells': cells.astype(np.int32), 'counts': counts.astype(np.int32),
            'map': zlib.compress(guess.tobytes()), 'shape': guess.shape,
        }  # fmt: skip
        stored.append(Stored(index, f'validation/{photo.name}', str(photo), 0.1, [result]))
    facts = {'metrics': {'mIoU': 50.0}, 'classes': [f'class {i}' for i in range(150)]}
    return Case('seg/fpn_uniformer_s.py', stored, facts, truth=correct)


def boxes(root: Path) -> Case:
    """COCO photos with shifted boxes, none on every third photo."""
    return _coco(root, 'coco', 'instances', 'bbox', 'det/mask_rcnn_uniformer_s.py', 'bbox_mAP')


def persons(root: Path) -> Case:
    """COCO photos with shifted joints, none on every third photo."""
    config = 'pose/td_hm_uniformer_s_256x192.py'
    return _coco(root, 'coco_pose', 'person_keypoints', 'keypoints', config, 'AP')


def _coco(root: Path, data: str, name: str, kind: str, config: str, metric: str) -> Case:
    source = shared_dir('data', data).resolve()
    (root / 'coco').symlink_to(source)
    truth = json.loads((source / f'annotations/{name}_val2017.json').read_text())
    rng = np.random.default_rng(0)
    stored, found = [], []
    for index, image in enumerate(truth['images']):
        path = root / 'coco/val2017' / image['file_name']
        part = {'img_id': image['id']}
        stored.append(Stored(index, image['file_name'], str(path), 0.1, [(part, part)]))
        for item in truth['annotations']:
            if item['image_id'] != image['id'] or item['iscrowd'] or index % 3 == 0:
                continue
            guess = {'image_id': image['id'], 'category_id': item['category_id'],
                     'score': float(rng.uniform(0.4, 1))}  # fmt: skip
            if kind == 'bbox':
                guess['bbox'] = [v + rng.normal(0, 1) for v in item['bbox']]
            else:
                guess['keypoints'] = [float(v) for v in item['keypoints']]
            found.append(guess)
    classes = [c['name'] for c in truth['categories']] if kind == 'bbox' else []
    files = {f'predictions.{kind}.json': json.dumps(found)}
    facts = {'metrics': {metric: 50.0}, 'classes': classes}
    return Case(config, stored, facts, files=files, truth=truth)


CASES = {'cls': photos, 'video': clips, 'seg': label_maps, 'det': boxes, 'pose': persons}


def make(kind: str, root: Path) -> tuple[Path, Case]:
    """The folder of a finished test, and what it is about."""
    case = CASES[kind](root)
    return finish(root / 'test', root, case), case
