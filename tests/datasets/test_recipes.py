# SPDX-License-Identifier: Apache-2.0
"""Every video recipe against its row, and each data set's pipelines and first step on clips."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import Runner

# run.sh over yaml of Sense-X/UniFormer, by config: frames, interval (None: segments), batch on 8
# GPUs, lr, epochs, warm-up, drop path, classes, seed, initial weights, clips and crops in tests.
ROWS = {
    's_8x8_k400': (8, 8, 128, 4e-4, 100, 10, 0.1, 400, 6666, 'small_in1k', 4, 1),
    's_16x4_k400': (16, 4, 32, 1e-4, 110, 10, 0.1, 400, 6666, 'small_in1k', 4, 1),
    's_16x8_k400': (16, 8, 32, 1e-4, 110, 10, 0.1, 400, 6666, 'small_in1k', 4, 1),
    's_32x4_k400': (32, 4, 32, 1e-4, 110, 10, 0.1, 400, 6666, 'small_in1k', 4, 1),
    'b_8x8_k400': (8, 8, 64, 2e-4, 100, 10, 0.3, 400, 6666, 'base_in1k', 4, 1),
    'b_16x4_k400': (16, 4, 40, 1.25e-4, 110, 10, 0.3, 400, 6666, 'base_in1k', 4, 1),
    'b_16x8_k400': (16, 8, 40, 1.25e-4, 110, 10, 0.3, 400, 6666, 'base_in1k', 4, 1),
    'b_32x4_k400': (32, 4, 32, 1e-4, 110, 10, 0.3, 400, 6666, 'base_in1k', 4, 1),
    's_16x4_k600': (16, 4, 96, 3e-4, 110, 10, 0.1, 600, 6666, 'small_in1k', 4, 1),
    's_16x8_k600': (16, 8, 32, 1e-4, 110, 10, 0.1, 600, 6666, 'small_in1k', 4, 1),
    'b_16x4_k600': (16, 4, 40, 1.25e-4, 110, 10, 0.3, 600, 6666, 'base_in1k', 4, 1),
    'b_16x8_k600': (16, 8, 32, 1.25e-4, 110, 10, 0.3, 600, 6666, 'base_in1k', 4, 1),
    # Per node of four; the learning rate is that of all nodes.
    'b_32x4_k600': (32, 4, 32, 4e-4, 110, 10, 0.3, 600, 6666, 'base_in1k', 4, 1),
    's_16_ssv1': (16, None, 32, 2e-4, 60, 5, 0.2, 174, 0, 'small_k400_16x4', 1, 3),
    's_16_ssv1_from_k600': (16, None, 32, 2e-4, 60, 5, 0.2, 174, 0, 'small_k600_16x4', 1, 3),
    's_32_ssv1': (32, None, 32, 2e-4, 60, 5, 0.2, 174, 0, 'small_k400_16x4', 1, 3),
    's_32_ssv1_from_k600': (32, None, 32, 2e-4, 60, 5, 0.3, 174, 0, 'small_k600_16x4', 1, 3),
    'b_16_ssv1': (16, None, 40, 2.5e-4, 60, 5, 0.6, 174, 6666, 'base_k400_16x4', 1, 3),
    'b_16_ssv1_from_k600': (16, None, 40, 2.5e-4, 60, 5, 0.5, 174, 6666, 'base_k600_16x4', 1, 3),
    'b_32_ssv1': (32, None, 32, 2e-4, 60, 5, 0.6, 174, 6666, 'base_k400_16x4', 1, 3),
    'b_32_ssv1_from_k600': (32, None, 32, 2e-4, 60, 5, 0.6, 174, 6666, 'base_k600_16x4', 1, 3),
    's_16_ssv2': (16, None, 32, 2e-4, 50, 5, 0.3, 174, 0, 'small_k400_16x4', 1, 3),
    's_16_ssv2_from_k600': (16, None, 32, 2e-4, 50, 5, 0.3, 174, 0, 'small_k600_16x4', 1, 3),
    's_32_ssv2': (32, None, 32, 2e-4, 50, 5, 0.3, 174, 0, 'small_k400_16x4', 1, 3),
    's_32_ssv2_from_k600': (32, None, 32, 2e-4, 50, 5, 0.3, 174, 0, 'small_k600_16x4', 1, 3),
    'b_16_ssv2': (16, None, 40, 2.5e-4, 50, 5, 0.4, 174, 6666, 'base_k400_16x4', 1, 3),
    'b_16_ssv2_from_k600': (16, None, 40, 2.5e-4, 50, 5, 0.5, 174, 6666, 'base_k600_16x4', 1, 3),
    'b_32_ssv2': (32, None, 32, 2e-4, 50, 5, 0.5, 174, 6666, 'base_k400_16x4', 1, 3),
    'b_32_ssv2_from_k600': (32, None, 32, 2e-4, 50, 5, 0.5, 174, 6666, 'base_k600_16x4', 1, 3),
    's_16x4_ucf101': (16, 4, 128, 5e-5, 25, 5, 0.2, 101, 6666, 'small_k400_16x4', 5, 3),
    # The released yaml's 101 outputs for 51 classes.
    's_16x4_hmdb51': (16, 4, 128, 5e-5, 25, 5, 0.2, 101, 6666, 'small_k400_16x4', 5, 3),
}
# One config for each way from files to clips, with the fixture that lays the files out.
FAMILIES = {
    's_16x4_k600': 'gesture_as_kinetics600',
    's_16_ssv1': 'orange_as_sthv1',
    's_16x4_ucf101': 'gesture_as_ucf101',
    's_16x4_hmdb51': 'clips_as_hmdb51',
}


def find(transforms: list, kind: str) -> dict:
    (entry,) = [t for t in transforms if t['type'].removeprefix('uniformer_mm.') == kind]
    return entry


def in_scope(cfg):
    return DefaultScope.overwrite_default_scope(cfg.default_scope)


@pytest.mark.parametrize('row', ROWS)
def test_the_row_of_the_recipe(load, row):
    frames, interval, batch, lr, epochs, warmup, drop_path, classes, seed, init, clips, crops = (
        ROWS[row]
    )
    nodes = 4 if row == 'b_32x4_k600' else 1
    cfg = load(f'uniformer_{row}')
    assert cfg.model.backbone == dict(
        type='uniformer_mm.UniFormer3d',
        arch={'s': 'small', 'b': 'base'}[row[0]],
        drop_path_rate=drop_path,
        init_cfg=dict(type='UniFormerPretrained', checkpoint=f'uniformer://{init}'),
    )
    assert cfg.train_dataloader.batch_size == batch // 8
    assert cfg.auto_scale_lr.base_batch_size == nodes * batch
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.lr) == ('AmpOptimWrapper', lr)
    assert cfg.optim_wrapper.clip_grad.max_norm == 20
    schedule = cfg.param_scheduler
    assert schedule.warmup_lr == schedule.min_lr == nodes * 1e-6
    assert (schedule.total, schedule.warmup, schedule.cosine_begin) == (epochs, warmup, warmup)
    assert (cfg.train_cfg.max_epochs, cfg.randomness.seed) == (epochs, seed)
    assert cfg.model.cls_head.num_classes == classes
    blending = cfg.model.data_preprocessor.blending
    assert [(mix.alpha, mix.num_classes) for mix in blending.augments] == [
        (0.8, classes), (1.0, classes),
    ]  # fmt: skip

    sampler = 'LinspaceSampleFrames' if interval else 'SegmentSampleFrames'
    for split, views in (('train', 1), ('val', 1), ('test', clips)):
        pipeline = cfg[f'{split}_dataloader'].dataset.pipeline
        sample = find(pipeline, sampler)
        assert (sample.clip_len, sample.get('frame_interval')) == (frames, interval)
        assert sample.get('num_clips', 1) == views
        assert sample.get('test_mode', False) == (split != 'train')
        assert ('uniformer_mm.RGBToBGR' in str(pipeline)) == ('ssv' in row or 'hmdb' in row)
        if split != 'train':
            crop = find(pipeline, 'ClipUniformCrop')
            assert (crop.size, crop.num_crops) == (224, crops if split == 'test' else 1)
    copies = find(cfg.train_dataloader.dataset.pipeline, 'AugmentedCopies')
    assert copies.num_copies == 2
    assert ('Flip' in str(copies)) == ('ssv' not in row)


def test_milder_policy_is_not_the_increasing_one(load):
    """rand-m5-n2-mstd0.25: timm's values for strengths about a half, from the plain formulas."""
    for row in ('s_16x4_ucf101', 's_16x4_hmdb51'):
        copies = find(load(f'uniformer_{row}').train_dataloader.dataset.pipeline, 'AugmentedCopies')
        transform = TRANSFORMS.build(find(copies.transforms, 'ClipRandAugment'))
        random.seed(0)
        np.random.seed(0)
        policies = [transform.random_policy() for _ in range(3000)]
        assert max(map(len, policies)) == 2
        values: dict[str, list[float]] = {}
        for name, value in (op for policy in policies for op in policy):
            values.setdefault(name, []).append(value)
        assert len(values) == 15
        # Strength 0.5 +- 0.025: the increasing set would give the same Solarize, but Color 1.45 or
        # 0.55 and Posterize 2 or 3 bits.
        for name, at_half, per_strength in (
            ('Color', 1.0, 1.8), ('Sharpness', 1.0, 1.8), ('Solarize', 127.5, 256),
            ('Rotate', 15, 30), ('ShearX', 0.15, 0.3), ('TranslateY', 0.225, 0.45),
        ):  # fmt: skip
            strength = np.abs(values[name])
            assert abs(strength.mean() - at_half) < 0.02 * at_half, name
            assert strength.std() == pytest.approx(0.025 * per_strength, rel=0.25), name
        assert set(values['Posterize']) == {1, 2}


def test_ucf101_views_and_copies(load, gesture_as_ucf101):
    cfg = load('uniformer_s_16x4_ucf101')
    with in_scope(cfg):
        train, test = (
            DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'test')
        )
    copies = train[0]
    assert [tuple(copy['inputs'].shape) for copy in copies] == [(1, 3, 16, 224, 224)] * 2
    clip = test[1]['inputs']
    assert clip.shape == (15, 3, 16, 224, 224)
    # Views of one crop come from five starts; the centre crop of the first starts at frame 0.
    decord = pytest.importorskip('decord')
    video = decord.VideoReader(test.get_data_info(1)['filename'])
    frame = video[0].asnumpy().astype(np.float32)
    height, width = frame.shape[:2]
    scale = 224 / min(height, width)
    size = (224, math.floor(scale * height)) if width < height else (math.floor(scale * width), 224)
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    top, left = (math.ceil((side - 224) / 2) for side in frame.shape[:2])
    expected = torch.from_numpy(frame[top : top + 224, left : left + 224]).permute(2, 0, 1)
    distances = (clip[:, :, 0] - expected).abs().mean(dim=(1, 2, 3))
    assert distances.min() < 1e-3


def test_hmdb51_clips_are_bgr_frames_of_the_dense_formula(load, clips_as_hmdb51):
    """Files counted from 1; the start is a real draw; OpenCV's channels stay as they are read."""
    cfg = load('uniformer_s_16x4_hmdb51')
    keep = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
    find(cfg.train_dataloader.dataset.pipeline, 'AugmentedCopies').transforms = keep
    with in_scope(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 3
    for index in range(3):
        info = dataset.get_data_info(index)
        total = info['total_frames']
        random.seed(index)
        first, second = dataset[index]
        start = random.Random(index).uniform(0, max(total - 64, 0))
        wanted = torch.linspace(start, start + 63, 16).clamp(0, total - 1).long() + 1
        frames = [cv2.imread(f'{info["frame_dir"]}/img_{int(number):05d}.jpg') for number in wanted]
        expected = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)
        assert torch.equal(first['inputs'][0], expected)
        assert torch.equal(second['inputs'], first['inputs'])
        assert int(first['data_samples'].gt_label) == 50


def test_hmdb51_has_fifteen_views(load, clips_as_hmdb51):
    cfg = load('uniformer_s_16x4_hmdb51')
    with in_scope(cfg):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    views = dataset[0]['inputs']
    assert views.shape == (15, 3, 16, 224, 224)
    assert len({view.sum().item() for view in views[:, :, 0]}) > 3


def test_something_v1_reads_its_own_names_as_bgr(load, orange_as_sthv1):
    cfg = load('uniformer_s_32_ssv1')
    with in_scope(cfg):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    views = dataset[0]['inputs']
    assert views.shape == (3, 3, 32, 224, 224)
    # Frames 1 + round(i * 29 / 32) + int(29 / 32 / 2); blue counts them.
    wanted = torch.tensor([1 + round(i * 29 / 32) for i in range(32)])
    blue, green, red = (views[1, channel].mean(dim=(1, 2)) for channel in range(3))
    assert (blue - wanted).abs().max() < 3
    assert (green - 100 - wanted).abs().max() < 3
    assert (red - 200 - wanted).abs().max() < 3


@pytest.mark.parametrize('row', FAMILIES)
def test_one_step_on_clips_is_finite_and_moves_every_parameter(load, row, request):
    request.getfixturevalue(FAMILIES[row])
    cfg = load(f'uniformer_{row}')
    cfg.model.backbone.update(
        arch=dict(depths=(1, 1, 2, 1), dims=(16, 16, 32, 32), head_dim=16),
        init_cfg=None,
        drop_path_rate=0.0,
    )
    cfg.model.cls_head.in_channels = 32
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.train_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    copies = find(cfg.train_dataloader.dataset.pipeline, 'AugmentedCopies')
    find(copies.transforms, 'ClipRandomResizedCrop').size = 64
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with in_scope(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        assert len(batch['inputs']) == 2
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = model.train_step(batch, wrapper)
    classes = cfg.model.cls_head.num_classes
    assert losses['loss'].item() == pytest.approx(math.log(classes), rel=0.1)
    for name, p in model.named_parameters():
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), f'{name} did not move'
