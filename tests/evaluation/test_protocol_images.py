# SPDX-License-Identifier: Apache-2.0
"""Image protocols on real photos against their formulas, written again from the sources."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS
from PIL import Image

from uniformer_mm.evaluation.protocol import with_attention
from uniformer_mm.evaluation.reproduce import tests_of as find_tests
from uniformer_mm.models import UniFormer2d
from uniformer_mm.recipes import find_recipe

from ..conftest import shared_dir
from .helpers import build_model, config_of, enter, run_pipeline, shrink

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def network_input(config: Config, results: dict) -> np.ndarray:
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    kind = preprocessor.get('type', 'mmpretrain.ClsDataPreprocessor')
    model = MODELS.build({**preprocessor, 'type': kind})
    return model(pseudo_collate([results]), training=False)['inputs'][0].double().numpy()


@pytest.mark.parametrize(
    ('name', 'size', 'crop_pct', 'half'),
    [
        ('cls/uniformer_s_in1k.py', 224, 0.875, False),
        ('cls/uniformer_s_tl_224.py', 224, 0.9, False),
        ('cls/uniformer_s_tl_384_mean05.py', 384, 0.9, True),
    ],
)
def test_imagenet_crop_and_normalisation(name, size, crop_pct, half, tmp_path):
    pytest.importorskip('mmpretrain')
    enter('cls')
    photo = next(path for path in sorted(shared_dir('data', 'coco', 'val2017').iterdir()))
    # Without JPEG between, so that no decoder takes part.
    path = tmp_path / 'photo.png'
    Image.open(photo).convert('RGB').save(path)
    config = config_of(name, tmp_path, tmp_path)
    inputs = network_input(config, run_pipeline(config, {'img_path': str(path), 'gt_label': 0}))

    with Image.open(path) as image:
        short = math.floor(size / crop_pct)
        width, height = image.size
        other = int(short * max(width, height) / min(width, height))
        shape = (short, other) if width < height else (other, short)
        resized = image.resize(shape, Image.BICUBIC)
    left, top = (round((side - size) / 2) for side in resized.size)
    values = np.asarray(resized.crop((left, top, left + size, top + size))) / 255
    mean, std = (0.5, 0.5) if half else (MEAN, STD)
    expected = ((values - mean) / std).transpose(2, 0, 1)
    assert inputs.shape == (3, size, size)
    assert np.abs(inputs - expected).max() < 1e-5


def test_token_labelling_is_measured_with_both_normalisations():
    tests = find_tests('cls_tl/s_224')
    assert [test.config.name for test in tests] == [
        'uniformer_s_tl_224.py', 'uniformer_s_tl_224_mean05.py',
    ]  # fmt: skip
    assert {test.variant for test in tests} == {'uniformer_s_tl_224', 'uniformer_s_tl_224_mean05'}
    assert [test.variant for test in find_tests('cls/s')] == ['']


def test_coco_single_scale(tmp_path):
    pytest.importorskip('mmdet')
    enter('det')
    path = sorted(shared_dir('data', 'coco', 'val2017').iterdir())[1]
    config = config_of('det/mask_rcnn_uniformer_s.py', tmp_path, tmp_path)
    info = {'img_path': str(path), 'img_id': 1, 'instances': [], 'height': 0, 'width': 0}
    inputs = network_input(config, run_pipeline(config, info))
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    scale = min(1333 / max(height, width), 800 / min(height, width))
    shape = (int(width * scale + 0.5), int(height * scale + 0.5))
    resized = cv2.resize(image, shape)[..., ::-1] / 255
    values = ((resized - MEAN) / STD).transpose(2, 0, 1)
    padded = [math.ceil(side / 32) * 32 for side in shape[::-1]]
    assert list(inputs.shape[1:]) == padded
    assert np.abs(inputs[:, : shape[1], : shape[0]] - values).max() < 1e-5
    assert not inputs[:, shape[1] :].any() and not inputs[:, :, shape[0] :].any()


@pytest.fixture(scope='module')
def ade() -> Path:
    pytest.importorskip('mmseg')
    enter('seg')
    return shared_dir('data', 'ade', 'ADEChallengeData2016').resolve()


def segmentation_sample(config: Config, ade: Path) -> dict:
    enter('seg')
    dataset = config.test_dataloader.dataset
    dataset.data_root = str(ade)
    return DATASETS.build({**dataset, 'lazy_init': False})[0]


@pytest.mark.parametrize('head', ['fpn', 'upernet'])
def test_ade20k_whole_image_stretched_for_fpn_only(head, ade, tmp_path):
    config = config_of(f'seg/{head}_uniformer_s.py', tmp_path, tmp_path)
    results = segmentation_sample(config, ade)
    inputs = network_input(config, results)
    image = cv2.imread(str(next(iter(sorted((ade / 'images/validation').iterdir())))))
    height, width = image.shape[:2]
    scale = min(2048 / max(height, width), 512 / min(height, width))
    shape = (int(width * scale + 0.5), int(height * scale + 0.5))
    resized = cv2.resize(image, shape)
    if head == 'fpn':
        # align_resize.py: each side up to a multiple of 32, the picture stretched.
        shape = tuple(math.ceil(side / 32) * 32 for side in shape)
        resized = cv2.resize(resized, shape)
    values = ((resized[..., ::-1] / 255 - MEAN) / STD).transpose(2, 0, 1)
    assert inputs.shape == values.shape
    assert (shape[0] % 32, shape[1] % 32) == (0, 0) or head == 'upernet'
    assert np.abs(inputs - values).max() < 1e-5


def test_one_checkpoint_under_three_attentions(ade, tmp_path):
    recipe = find_recipe('seg/fpn_s_g')
    torch.manual_seed(0)
    image = torch.randn(1, 3, 96, 544)  # 6 x 34 tokens in stage 3: more than one window of 32
    outputs = {}
    state = None
    for name, attention, window in (
        ('global', 'global', None), ('h32', 'hybrid', 32), ('w32', 'window', 32),
    ):  # fmt: skip
        sibling = with_attention(recipe, name)
        assert sibling.row.file == recipe.row.file
        config = shrink(config_of(sibling.config, tmp_path, tmp_path))
        # Block 4 of stage 3 is the first global one of hybrid attention.
        arch = config.model.backbone.arch | {'depths': (1, 1, 5, 1)}
        config.model.backbone.arch = arch
        model = build_model(config)
        state = state or model.state_dict()
        model.load_state_dict(state, strict=True)
        own = UniFormer2d(arch, attention=attention, **({'window_size': window} if window else {}))
        own.load_state_dict(
            {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
        )
        with torch.no_grad():
            outputs[name] = model.backbone(image)
            expected = own.eval()(image)
        assert all(torch.equal(a, b) for a, b in zip(outputs[name], expected, strict=True))
    for a, b in itertools.combinations(outputs.values(), 2):
        assert not torch.allclose(a[2], b[2], atol=1e-4)
    with pytest.raises(
        ValueError, match="seg/fpn_s_h14 has no published test with attention='w32'"
    ):
        with_attention(find_recipe('seg/fpn_s_h14'), 'w32')


def test_multi_scale_and_flip_equal_twelve_passes_by_hand(ade, tmp_path):
    options = {'multi_scale': True}
    ours = shrink(config_of('seg/upernet_uniformer_s.py', tmp_path, tmp_path, **options))
    stock = shrink(
        config_of('seg/upernet_uniformer_s.py', tmp_path, tmp_path, stock=True, **options)
    )
    assert (ours.model.type, stock.model.type) == ('uniformer_mm.RunningSegTTA', 'SegTTAModel')
    for config in (ours, stock):
        # The same six ratios of a quarter of the size.
        for step in config.test_dataloader.dataset.pipeline:
            for resize in step.get('transforms', [[]])[0]:
                resize['scale'] = tuple(side // 4 for side in resize['scale'])
    model, reference = build_model(ours), build_model(stock)
    assert len(segmentation_sample(ours, ade)['inputs']) == 12
    batch = [pseudo_collate([segmentation_sample(ours, ade)]) for _ in range(2)]
    with torch.no_grad():
        (guess,) = model.test_step(batch[0])
        (other,) = reference.test_step(batch[1])
    guess = guess.pred_sem_seg.data.squeeze()
    assert torch.equal(guess, other.pred_sem_seg.data.squeeze())

    image = cv2.imread(str(ade / 'images/validation/ADE_val_00000001.jpg'))
    height, width = image.shape[:2]
    total = 0
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        long, short = int(2048 * ratio) // 4, int(512 * ratio) // 4
        scale = min(long / max(height, width), short / min(height, width))
        shape = (int(width * scale + 0.5), int(height * scale + 0.5))
        resized = cv2.resize(image, shape)[..., ::-1] / 255
        values = torch.from_numpy(((resized - MEAN) / STD).transpose(2, 0, 1)[None]).float()
        for flip in (False, True):
            inputs = values.flip(3) if flip else values
            network = model.module
            with torch.no_grad():
                maps = network.decode_head(network.extract_feat(inputs))
                maps = torch.nn.functional.interpolate(maps, inputs.shape[2:], mode='bilinear')
                maps = maps.flip(3) if flip else maps
                maps = torch.nn.functional.interpolate(maps, (height, width), mode='bilinear')
            total = total + maps[0].double().softmax(0)
    # Near-ties between two classes may fall either way in float32.
    assert (total.argmax(0) == guess).double().mean() > 0.999


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
            if 1 < x < 47 and 1 < y < 63:  # post_process 'default': a quarter pixel uphill
                place[0] += 0.25 * np.sign(plane[y, x + 1] - plane[y, x - 1])
                place[1] += 0.25 * np.sign(plane[y + 1, x] - plane[y - 1, x])
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


def test_choices_are_for_their_tasks(tmp_path):
    for name, options, words in (
        ('det/mask_rcnn_uniformer_s.py', {'multi_scale': True}, 'multi_scale is a choice for seg'),
        ('seg/fpn_uniformer_s.py', {'boxes': 'gt'}, 'boxes is a choice for pose'),
        ('cls/uniformer_s_in1k.py', {'fusion': 'prob'}, 'fusion is a choice for video'),
        ('seg/fpn_uniformer_s.py', {'multi_scale': True}, 'no multi-scale test'),
    ):
        with pytest.raises(ValueError, match=words):
            config_of(name, tmp_path, tmp_path, **options)
