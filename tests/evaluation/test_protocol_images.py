# SPDX-License-Identifier: Apache-2.0
"""Image protocols on real photos against their formulas, written again from the sources."""

from __future__ import annotations

import itertools
import math
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS
from PIL import Image

from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.evaluation import PredictionStore
from uniformer_mm.evaluation.metrics.confusion import image_labels
from uniformer_mm.evaluation.record import read_record
from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.protocol import with_attention
from uniformer_mm.evaluation.running.reproduce import tests_of as find_tests
from uniformer_mm.recipes import find_recipe

from ..conftest import shared_dir
from .helpers import TINY, build_model, command, config_of, enter, run_pipeline, shrink

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def network_input(config: Config, results: dict) -> np.ndarray:
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    kind = preprocessor.get('type', 'mmpretrain.ClsDataPreprocessor')
    model = MODELS.build({**preprocessor, 'type': kind})
    return model(pseudo_collate([results]), training=False)['inputs'][0].double().numpy()


# Portrait, landscape, panorama.
PHOTOS = ('000000536038.jpg', '000000229358.jpg', '000000549055.jpg')


@pytest.mark.parametrize('photo', PHOTOS)
@pytest.mark.parametrize(
    ('name', 'size', 'crop_pct', 'half'),
    [
        ('cls/uniformer_s_in1k.py', 224, 0.875, False),
        ('cls/uniformer_s_tl_224.py', 224, 0.9, False),
        ('cls/uniformer_s_tl_384_mean05.py', 384, 0.9, True),
    ],
)
def test_imagenet_crop_and_normalisation(name, size, crop_pct, half, photo, tmp_path):
    pytest.importorskip('mmpretrain')
    enter('cls')
    photo = shared_dir('data', 'coco', 'val2017') / photo
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


@pytest.mark.parametrize('photo', PHOTOS)
def test_coco_single_scale(photo, tmp_path):
    pytest.importorskip('mmdet')
    enter('det')
    path = shared_dir('data', 'coco', 'val2017') / photo
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


def segmentation_sample(config: Config, ade: Path, index: int = 0) -> dict:
    enter('seg')
    dataset = config.test_dataloader.dataset
    dataset.data_root = str(ade)
    return DATASETS.build({**dataset, 'lazy_init': False})[index]


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


# Block 4 of stage 3 is the first global one of hybrid attention.
DEEP = TINY | {'depths': (1, 1, 5, 1)}
ATTENTIONS = {
    'global': ('fpn_uniformer_s', 'global'),
    'h32': ('fpn_uniformer_s_h32', 'hybrid'),
    'w32': ('fpn_uniformer_s_w32', 'window'),
}


def deepened(config: Config) -> Config:
    """A shrunk test whose stage 3 has windows and a global block, with narrow heads."""
    shrink(config)
    config.model.backbone.arch = DEEP
    config.model.neck.out_channels = 32
    config.model.decode_head.update(in_channels=[32] * 4, channels=32)
    return config


def official_labels(model: torch.nn.Module, attention: str, batch: dict) -> np.ndarray:
    """Label map of a photo by the official network, the model's own neck and head, and resizing."""
    network = OfficialUniFormer(2, **DEEP, attention=attention, window_size=32).eval()
    network.load_state_dict(model.backbone.state_dict(), strict=True)
    data = model.data_preprocessor(batch, training=False)
    shape = data['data_samples'][0].ori_shape
    with torch.no_grad():
        logits = model.decode_head(model.neck(network(data['inputs'])))
        for size in (data['inputs'].shape[2:], shape):
            logits = torch.nn.functional.interpolate(logits, size, mode='bilinear')
    return logits[0].argmax(0).numpy()


def test_one_checkpoint_under_three_attentions(ade, tmp_path, monkeypatch):
    """``--attention`` on real photos, against the official network with the same weights."""
    (tmp_path / 'ade').mkdir()
    (tmp_path / 'ade/ADEChallengeData2016').symlink_to(ade)
    weights = tmp_path / 'global.pth'

    def run_here(folder: Path, gpus: int, advance) -> dict:
        deepened(Config.fromfile(folder / worker.CONFIG)).dump(folder / worker.CONFIG)
        return worker.run(folder)

    monkeypatch.setattr(
        import_module('uniformer_mm.evaluation.running.reproduce'), 'run_test', run_here
    )
    maps = {}
    for name, (file, attention) in ATTENTIONS.items():
        config = deepened(config_of(f'seg/{file}.py', tmp_path, tmp_path))
        model = build_model(config)
        for key, value in model.named_parameters():
            if '.blocks3.' in f'.{key}' and '.attn.' in key:
                value.data *= 8  # so that it matters who attends to whom
        if not weights.exists():
            torch.save({'state_dict': model.state_dict()}, weights)
        status, words = command(
            'reproduce', 'seg/fpn_s_g', '--attention', name, '--weights', str(weights), '--data',
            str(tmp_path), '--gpus', '0', '--workers', '0', '--batch-size', '1', '--limit', '1',
            '--work-dir', str(tmp_path / 'work'),
        )  # fmt: skip
        assert status == 0, words
        row = {'global': 'seg/fpn_s_g'}.get(name, f'seg/fpn_s_{name}')
        folder = tmp_path / 'work' / row.replace('/', '-') / 'limit-1-seed-0'
        record = read_record(folder / 'record.json')
        assert (record.row, record.config) == (row, f'seg/{file}.py')
        (stored,) = PredictionStore(folder).read()
        maps[name] = image_labels(stored.results[0])
        batch = pseudo_collate([segmentation_sample(config, ade, stored.position)])
        expected = official_labels(model, attention, batch)
        # Near-ties between two classes may fall either way in float32.
        assert (maps[name] == expected).mean() > 0.999
        assert len(np.unique(expected)) > 3
    for first, second in itertools.combinations(maps.values(), 2):
        assert (first == second).mean() < 0.99
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
        # The same six ratios of an eighth of the size.
        for step in config.test_dataloader.dataset.pipeline:
            for resize in step.get('transforms', [[]])[0]:
                resize['scale'] = tuple(side // 8 for side in resize['scale'])
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
        long, short = int(2048 * ratio) // 8, int(512 * ratio) // 8
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


def test_choices_are_for_their_tasks(tmp_path):
    for name, options, words in (
        ('det/mask_rcnn_uniformer_s.py', {'multi_scale': True}, 'multi_scale=True is a choice'),
        ('seg/fpn_uniformer_s.py', {'boxes': 'gt'}, "boxes='gt' is a choice for pose"),
        ('cls/uniformer_s_in1k.py', {'fusion': 'prob'}, "fusion='prob' is a choice for video"),
        ('seg/fpn_uniformer_s.py', {'multi_scale': True}, 'no multi-scale test'),
    ):
        with pytest.raises(ValueError, match=words):
            config_of(name, tmp_path, tmp_path, **options)
