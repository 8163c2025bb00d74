# SPDX-License-Identifier: Apache-2.0
"""The toolbox's numbers, subsets, what data and weights must be like, and other refusals."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from uniformer_mm.evaluation import PredictionStore
from uniformer_mm.evaluation.metrics.percentages import percentages
from uniformer_mm.evaluation.record import read_record
from uniformer_mm.evaluation.report import write_report
from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.data_lists import list_order
from uniformer_mm.labels import class_names

from .helpers import QUICKSTARTS, command, enter, measure, stock_metrics

SAME = {
    'video': {'top1': ('acc/top1', 100), 'top5': ('acc/top5', 100), 'mean1': ('acc/mean1', 100)},
    'seg': {'mIoU': ('mIoU', 1), 'aAcc': ('aAcc', 1), 'mAcc': ('mAcc', 1)},
    'det': {'bbox_mAP': ('coco/bbox_mAP', 100), 'segm_mAP': ('coco/segm_mAP', 100)},
    'pose': {'AP': ('coco/AP', 100), 'AR': ('coco/AR', 100)},
    'cls': {'top1': ('accuracy/top1', 1), 'top5': ('accuracy/top5', 1)},
}
WRITTEN = {'det': ('bbox', 'segm'), 'pose': ('keypoints',)}


def written(folder: Path, kind: str) -> list[dict]:
    """The predictions that a test has left in COCO's format."""
    return json.loads((folder / f'predictions.{kind}.json').read_text())


@pytest.mark.parametrize('task', list(QUICKSTARTS))
def test_the_numbers_are_the_toolboxs(task, data, weights, whole, tmp_path):
    pytest.importorskip(worker._PACKAGES[task])
    folder, record = whole(task)
    stock = stock_metrics(task, data, weights(task), tmp_path)
    for name, (key, factor) in SAME[task].items():
        assert record.metrics[name] == round(float(stock[key]) * factor, 4)
    # A random network finds nothing that is right; what it finds must be the same all the same.
    for kind in WRITTEN.get(task, ()):
        assert len(written(folder, kind)) >= record.samples
        assert written(folder, kind) == written(tmp_path, kind)
    if task not in WRITTEN:
        assert 0 < record.metrics['mIoU' if task == 'seg' else 'top1'] < 100
    assert record == read_record(folder / 'record.json')
    assert record.samples == len(list(PredictionStore(folder).read())) == record.listed
    assert record.agrees is None and record.published == {} and record.published_files == 0
    assert record.versions['torch'] == torch.__version__.partition('+')[0]


def shaky_boxes(truth: dict, seed: int = 0) -> dict[int, InstanceData]:
    """Annotated boxes and masks, shifted at random and some of another class, by image."""
    from pycocotools import mask as rle

    rng = np.random.default_rng(seed)
    categories = [category['id'] for category in truth['categories']]
    sizes = {image['id']: (image['height'], image['width']) for image in truth['images']}
    found = {}
    for image, size in sizes.items():
        boxes, masks, labels = [], [], []
        for item in truth['annotations']:
            if item['image_id'] != image:
                continue
            x, y, w, h = item['bbox']
            dx, dy = rng.integers(-4, 5, 2)
            boxes.append([x + dx, y + dy, x + w + dx, y + h + dy])
            merged = rle.merge(rle.frPyObjects(item['segmentation'], *size))
            masks.append(np.roll(rle.decode(merged), (dy, dx), (0, 1)).astype(bool))
            label = categories.index(item['category_id'])
            labels.append(label if rng.random() < 0.8 else (label + 1) % len(categories))
        found[image] = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
            masks=torch.from_numpy(np.array(masks, bool).reshape(-1, *size)),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.from_numpy(rng.uniform(0.1, 1, len(labels))).float(),
        )
    return found


def shaky_joints(truth: dict, image: int, box_XYXY: np.ndarray) -> np.ndarray:
    """Joints ``(1, 17, 2)`` of the annotated person whose centre is nearest, shifted at random."""

    def distance(item: dict) -> float:
        x, y, w, h = item['bbox']
        centre = (box_XYXY[:2] + box_XYXY[2:]) / 2
        return float(np.hypot(*(centre - (x + w / 2, y + h / 2))))

    persons = [item for item in truth['annotations'] if item['image_id'] == image]
    nearest = min(persons, key=distance)
    joints = np.array(nearest['keypoints'], float).reshape(1, 17, 3)[..., :2]
    rng = np.random.default_rng(nearest['id'])
    return joints + rng.normal(0, rng.choice([1, 3, 8]), joints.shape)


@pytest.fixture
def shaky(monkeypatch):
    """Let networks answer with the truth, shaken; what surrounds them stays as it is."""

    def patch(task: str, truth: dict) -> None:
        if task == 'det':
            from mmdet.models.detectors import TwoStageDetector as Model

            found = shaky_boxes(truth)
        else:
            from mmpose.models.pose_estimators import TopdownPoseEstimator as Model

        def predict(self, inputs, data_samples, **_):
            for sample in data_samples:
                if task == 'det':
                    sample.pred_instances = found[sample.img_id]
                    continue
                joints = shaky_joints(truth, sample.img_id, sample.gt_instances.bboxes[0])
                sample.pred_instances = InstanceData(
                    keypoints=joints,
                    keypoint_scores=np.full(joints.shape[:2], 0.9),
                    bboxes=sample.gt_instances.bboxes,
                    bbox_scores=sample.gt_instances.bbox_scores,
                )
            return data_samples

        monkeypatch.setattr(Model, 'predict', predict)

    return patch


@pytest.mark.parametrize('task', list(WRITTEN))
def test_ap_is_pycocotools_and_the_toolboxs(task, data, weights, tmp_path, in_process, shaky):
    pytest.importorskip(worker._PACKAGES[task])
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    name = {'det': 'instances', 'pose': 'person_keypoints'}[task]
    path = data / f'coco/annotations/{name}_val2017.json'
    truth = json.loads(path.read_text())
    enter(task)
    shaky(task, truth)
    folder, record = measure(task, data, weights, tmp_path / 'ours')
    stock = stock_metrics(task, data, weights(task), tmp_path)
    for metric, (key, factor) in SAME[task].items():
        assert record.metrics[metric] == round(float(stock[key]) * factor, 4)
    assert record.listed_files == len(truth['images']) >= record.files
    for kind in WRITTEN[task]:
        found = written(folder, kind)
        assert found == written(tmp_path, kind)
        if kind == 'segm':  # with a box in the entry, pycocotools takes the box's area
            found = [{k: v for k, v in item.items() if k != 'bbox'} for item in found]
        with contextlib.redirect_stdout(io.StringIO()):
            api = COCO(str(path))
            evaluation = COCOeval(api, api.loadRes(found), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        ap = 100 * evaluation.stats[0]
        assert 5 < ap < 95
        # mmdet rounds to three decimals of a share.
        measured = record.metrics['AP' if task == 'pose' else f'{kind}_mAP']
        assert measured == pytest.approx(ap, abs=0.05 + 1e-9 if task == 'det' else 1e-4)


def test_a_detector_that_finds_nothing(data, weights, tmp_path, in_process):
    pytest.importorskip('mmdet')
    nothing = {'model.test_cfg.rcnn.score_thr': 1.1}
    for limit in (None, 3):
        folder, record = measure('det', data, weights, tmp_path, overrides=nothing, limit=limit)
        assert written(folder, 'bbox') == []
        assert record.metrics == {'bbox_mAP': 0.0, 'segm_mAP': 0.0} and record.intervals == {}
        assert record.notes == ['the network found nothing in any image']
    assert 'The network found nothing.' in write_report(folder).read_text()
    # Metrics that are missing for another reason are no zeros.
    config = Config({'model': {}, 'test_evaluator': {'metric': ['bbox', 'segm']}})
    (tmp_path / 'predictions.bbox.json').write_text('[{"image_id": 1}]')
    for empty in (tmp_path, tmp_path / 'absent'):
        with pytest.raises(ValueError, match=r'the test reported \[\], none of which is known'):
            percentages(config, 'det', {}, empty)


def test_a_subset_has_an_interval_and_only_its_own_truth(data, weights, tmp_path, in_process):
    pytest.importorskip('mmdet')
    _, record = measure('det', data, weights, tmp_path, limit=3)
    assert (record.limit, record.files, record.samples) == (3, 3, 3)
    assert set(record.intervals) == {'bbox_mAP', 'segm_mAP'}
    assert 'bootstrap over images' in record.interval_method
    low, high = record.intervals['bbox_mAP']
    assert 0 <= low <= record.metrics['bbox_mAP'] + 0.05 and low <= high
    truth = json.loads((data / 'coco/annotations/instances_val2017.json').read_text())
    assert record.listed == len(truth['images']) > 3
    (stored,) = tmp_path.rglob('predictions.bbox.json')
    tested = {item['image_id'] for item in json.loads(stored.read_text())}
    assert len(tested) <= 3


def test_missing_videos_are_counted_and_listed_labels_checked(
    data, weights, tmp_path, in_process
):  # fmt: skip
    pytest.importorskip('mmaction')
    copy = tmp_path / 'data'
    source = data / 'kinetics400'
    (copy / 'kinetics400').mkdir(parents=True)
    (copy / 'kinetics400/videos_val').symlink_to(source / 'videos_val')
    listed = (source / 'kinetics400_val_list_videos.txt').read_text().splitlines()
    target = copy / 'kinetics400/kinetics400_val_list_videos.txt'
    target.write_text('\n'.join([*listed, 'rising/gone.mp4 4']) + '\n')
    _, record = measure('video', copy, weights, tmp_path / 'w')
    assert (record.missing, record.files) == (1, len(listed))
    assert record.notes == ['1 of the listed files are missing and were left out']
    target.write_text('\n'.join([*listed[1:], listed[0].split()[0] + ' 8']) + '\n')
    with pytest.raises(ValueError, match='labels from 1 to 8, the model 8 classes'):
        measure('video', copy, weights, tmp_path / 'w2')
    target.write_text('nowhere/a.mp4 0\n')
    with pytest.raises(ValueError, match=r'none of the 1 listed files is there.*nowhere/a.mp4'):
        measure('video', copy, weights, tmp_path / 'w3')
    target.unlink()
    with pytest.raises(ValueError, match=r'list_videos\.txt is not there, which lists'):
        measure('video', copy, weights, tmp_path / 'w4')


def test_missing_photos_are_refused(data, weights, tmp_path, in_process):
    pytest.importorskip('mmseg')
    root = data / 'ade/ADEChallengeData2016'
    copy = tmp_path / 'data/ade/ADEChallengeData2016'
    (copy / 'images/validation').mkdir(parents=True)
    (copy / 'annotations').symlink_to(root / 'annotations')
    with pytest.raises(ValueError, match=r'images/validation is not there or empty; check --data'):
        measure('seg', tmp_path / 'data', weights, tmp_path / 'w')
    with pytest.raises(ValueError, match=r'data=.*is no folder'):
        measure('seg', tmp_path / 'absent', weights, tmp_path / 'w')


def test_weights_of_another_model(data, weights, tmp_path, in_process):
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r'does not fill the model.*decode_head|neck|head'):
        measure('det', data, lambda task: weights('seg'), tmp_path)
    state = torch.load(weights('cls'), weights_only=True)['state_dict']
    state['head.fc.weight'], state['head.fc.bias'] = torch.zeros(5, 256), torch.zeros(5)
    torch.save({'state_dict': state}, tmp_path / 'five.pth')
    with pytest.raises(ValueError, match=r'head.fc.weight \(5, 256\) instead of \(9, 256\)'):
        measure('cls', data, lambda task: tmp_path / 'five.pth', tmp_path)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['vid/k400_s_16x5'], r"is no recipe; did you mean one of \['vid/k400_s_16x"),
        (['seg/fpn_s_h14'], 'were never released .* --weights FILE'),
        (['seg/upernet_s_h14', '--attention', 'h32'], "no published test with --attention='h32'"),
        (['cls/s', '--limit', '0'], 'limit=0 must be at least 1'),
        (['cls/s', '--gpus', '99'], 'gpus=99, but this machine has'),
        (['cls/s', '--weights', 'x.pth', '--data', '/nonexistent'], 'is no folder; name the root'),
    ],
)
def test_requests_that_cannot_be_met(words, message, tmp_path):
    status, text = command('reproduce', *words, '--work-dir', str(tmp_path / 'w'))
    assert status == 2
    assert re.search(message, text), text


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    status, text = command(
        'reproduce', 'cls/s', '--weights', 'x.pth', '--data', str(tmp_path),
        '--work-dir', str(tmp_path / 'file'),
    )  # fmt: skip
    assert status == 2
    assert 'cannot be made (Not a directory); choose another' in text


def test_empty_imagenet_and_folders_of_other_classes(tmp_path):
    work = ['--weights', 'x.pth', '--data', str(tmp_path), '--work-dir', str(tmp_path / 'w')]
    (tmp_path / 'imagenet').mkdir()
    status, text = command('reproduce', 'cls/s', *work)
    assert status == 2 and 'has no class folders' in text
    (tmp_path / 'imagenet/val/n01440764').mkdir(parents=True)
    status, text = command('reproduce', 'cls/s', *work)
    assert status == 2 and 'data has 1 class folders, the row 1000 classes' in text
    (tmp_path / 'classes.json').write_text('{"n01440764": 0}')
    status, text = command('reproduce', 'cls/s', *work, '--classes', str(tmp_path / 'classes.json'))
    assert status == 2 and 'hold no images' in text


def kinetics_list(tmp_path: Path, order: str, spoil: bool = False) -> Config:
    names = class_names(f'kinetics400_{order}')
    lines = [f'{name.replace(" ", "_")}/{i}.mp4 {i}' for i, name in enumerate(names[:20])]
    if spoil:
        lines[3] = f'{names[3].replace(" ", "_")}/3.mp4 399'
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    return Config({'test_dataloader': {'dataset': {'ann_file': str(tmp_path / 'list.txt')}}})


def test_the_list_says_how_it_numbers_the_classes(tmp_path):
    for order in ('official', 'alphabetical'):
        config = kinetics_list(tmp_path, order)
        assert list_order(config, 'kinetics400', None) == f'kinetics400_{order}'
        assert list_order(config, 'kinetics400', order) == f'kinetics400_{order}'
    with pytest.raises(ValueError, match=r"class_order='official', but .* in the alphabetical"):
        list_order(config, 'kinetics400', 'official')
    with pytest.raises(ValueError, match='in neither order of kinetics400'):
        list_order(kinetics_list(tmp_path, 'official', spoil=True), 'kinetics400', None)
    with pytest.raises(ValueError, match='ssv2 has one class order'):
        list_order(config, 'ssv2', 'official')
    (tmp_path / 'list.txt').write_text('abc.mp4 3\n')
    assert list_order(config, 'kinetics400', None) == 'kinetics400_alphabetical'
    assert list_order(config, 'kinetics400', 'official') == 'kinetics400_official'
