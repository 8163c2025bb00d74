# SPDX-License-Identifier: Apache-2.0
"""The video configs: recipe, parameter groups, schedule, and pipelines on clips."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner

from .conftest import NAMES

K400, SSV2 = NAMES
# run.sh and yaml of Sense-X/UniFormer: lr, epochs, warm-up, drop path, classes, parameters.
RECIPES = {
    K400: (1e-4, 110, 10, 0.1, 400, 21_400_400),
    SSV2: (2e-4, 50, 5, 0.3, 174, 21_400_400 - (400 - 174) * (512 + 1)),
}


def in_scope(cfg):
    return DefaultScope.overwrite_default_scope(cfg.default_scope)


def build_model(cfg):
    cfg.model.backbone.init_cfg = None
    with in_scope(cfg):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', NAMES)
def test_model(load, name):
    _, _, _, drop_path, classes, params = RECIPES[name]
    model = build_model(load(name))
    assert sum(p.numel() for p in model.parameters()) == params
    assert model.cls_head.fc_cls.out_features == classes
    assert model.cls_head.dropout is None
    rates = [m.rate for m in model.modules() if type(m).__name__ == 'DropPath']
    assert max(rates) == pytest.approx(drop_path)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([0.45 * 255] * 3)
    assert model.data_preprocessor.std.flatten().tolist() == pytest.approx([0.225 * 255] * 3)


@pytest.mark.parametrize('name', NAMES)
def test_nothing_one_dimensional_decays_and_everything_else_does(load, name):
    cfg = load(name)
    # Residual scales are one-dimensional in attention blocks, five-dimensional in the others.
    cfg.model.backbone.arch = dict(
        depths=(1, 1, 2, 1), dims=(8, 8, 32, 32), head_dim=16, layer_scale=0.1
    )
    cfg.model.cls_head.in_channels = 32
    model = build_model(cfg)
    cfg.optim_wrapper.type = 'OptimWrapper'
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    dims = {name: (p.ndim, decay[id(p)]) for name, p in model.named_parameters()}
    assert len(decay) == len(dims), 'every parameter is optimised'
    assert {d for n, d in dims.values() if n == 1} == {0.0}
    assert {d for n, d in dims.values() if n > 1} == {0.05}
    assert dims['backbone.blocks3.0.gamma_1'] == (1, 0.0)
    assert dims['backbone.blocks1.0.gamma_1'] == (5, 0.05)
    assert dims['backbone.blocks3.1.pos_embed.weight'] == (5, 0.05)
    assert type(optimizer).__name__ == 'FusedAdamW'
    assert optimizer.defaults['betas'] == (0.9, 0.999)
    assert optimizer.defaults['lr'] == RECIPES[name][0]
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=20, norm_type=2)


def official_rate(epoch, base, epochs, warmup, end=1e-6):
    """PySlowFast's cosine after warm-up at a fractional epoch, both ends at ``end``."""
    if epoch < warmup:
        return end + (base - end) * epoch / warmup
    phase = math.pi * (epoch - warmup) / (epochs - warmup)
    return end + (base - end) * (math.cos(phase) + 1) / 2


@pytest.mark.parametrize('name', NAMES)
def test_learning_rate_at_every_iteration(load, name):
    base, epochs, warmup, *_ = RECIPES[name]
    cfg, length = load(name), 5
    assert cfg.train_cfg.max_epochs == epochs
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler, end=epochs),
        default_args=dict(optimizer=optimizer, epoch_length=length),
    )
    assert not scheduler.by_epoch
    for i in range(epochs * length):
        expected = official_rate(i / length, base, epochs, warmup)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-9), i
        optimizer.step()
        scheduler.step()


def test_the_ends_of_the_schedule_grow_with_the_nodes(load):
    """Four nodes: every rate of the schedule is four times that of one node."""
    cfg, length = load('uniformer_b_32x4_k600'), 1
    base = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler), default_args=dict(optimizer=optimizer, epoch_length=length)
    )
    for epoch in range(110):
        expected = 4 * official_rate(epoch, 1e-4, 110, 10)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-9), epoch
        optimizer.step()
        scheduler.step()


def loader(cfg, split):
    """A dataloader of the config, read in this process."""
    entry = cfg[f'{split}_dataloader']
    entry.update(num_workers=0, persistent_workers=False)
    with in_scope(cfg):
        return Runner.build_dataloader(entry, seed=0)


def test_kinetics_batch_holds_two_augmented_copies_of_each_clip(load, gesture_as_kinetics):
    random.seed(0)
    np.random.seed(0)
    cfg = load(K400)
    batch = next(iter(loader(cfg, 'train')))
    clips = batch['inputs']
    assert len(clips) == 2 * cfg.train_dataloader.batch_size
    labels = [int(sample.gt_label) for sample in batch['data_samples']]
    assert labels[0::2] == labels[1::2], 'copies lie side by side'
    assert len(set(labels)) > 1
    for clip, twin in zip(clips[0::2], clips[1::2], strict=True):
        assert clip.shape == twin.shape == (1, 3, 16, 224, 224)
        assert clip.dtype == torch.float32
        assert not torch.equal(clip, twin), 'each copy is augmented on its own'


def test_kinetics_copies_share_the_decoded_frames(load, gesture_as_kinetics):
    """Without augmentation both copies are the frames that the sampler named."""
    cfg = load(K400)
    keep = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
    cfg.train_dataloader.dataset.pipeline[-1].transforms = keep
    with in_scope(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    info = dataset.get_data_info(1)
    random.seed(5)
    first, second = dataset.pipeline(info)
    assert torch.equal(first['inputs'], second['inputs'])

    decord = pytest.importorskip('decord')
    video = decord.VideoReader(info['filename'])
    start = random.Random(5).uniform(0, max(len(video) - 64, 0))
    wanted = torch.linspace(start, start + 63, 16).clamp(0, len(video) - 1).long().tolist()
    frames = torch.from_numpy(np.stack([video[i].asnumpy() for i in wanted]))
    assert torch.equal(first['inputs'][0], frames.permute(3, 0, 1, 2)), 'RGB, in this order'


@pytest.mark.parametrize(('split', 'views'), [('val', 1), ('test', 4)])
def test_kinetics_views(load, gesture_as_kinetics, split, views):
    cfg = load(K400)
    batch = next(iter(loader(cfg, split)))
    assert {tuple(clip.shape) for clip in batch['inputs']} == {(views, 3, 16, 224, 224)}


@pytest.mark.parametrize(('split', 'views'), [('val', 1), ('test', 3)])
def test_something_views(load, orange_as_sthv2, split, views):
    batch = next(iter(loader(load(SSV2), split)))
    (clip,) = batch['inputs']
    assert clip.shape == (views, 3, 16, 224, 224)
    # Frames 1 + round(i * 29 / 16) + int(29 / 16 / 2); blue counts them: BGR.
    wanted = [1 + round(i * 29 / 16) + 0 for i in range(16)]
    blue, green, red = (clip[0, channel].mean(dim=(1, 2)) for channel in range(3))
    assert (blue - torch.tensor(wanted)).abs().max() < 3
    assert (green - 100 - torch.tensor(wanted)).abs().max() < 3
    assert (red - 200 - torch.tensor(wanted)).abs().max() < 3


def test_something_trains_on_bgr_without_flips(load, orange_as_sthv2):
    cfg = load(SSV2)
    transforms = cfg.train_dataloader.dataset.pipeline
    assert 'Flip' not in str(transforms)
    # RandAugment would repaint the orange; everything else stays.
    copies = transforms[-1]
    names = [entry['type'] for entry in transforms]
    assert names.index('uniformer_mm.RGBToBGR') == names.index('RawFrameDecode') + 1
    copies.transforms = [
        entry for entry in copies.transforms
        if entry['type'] not in ('uniformer_mm.ClipRandAugment', 'uniformer_mm.CubeErasing')
    ]  # fmt: skip
    with in_scope(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    samples = dataset[0]
    assert len(samples) == 2
    for sample in samples:
        blue, green, red = sample['inputs'][0].mean(dim=(1, 2, 3))
        assert blue < 35
        assert 95 < green < 135
        assert red > 195


@pytest.mark.parametrize('name', NAMES)
def test_order_of_the_augmentations(load, name):
    transforms = load(name).train_dataloader.dataset.pipeline[-1].transforms
    names = [entry['type'].removeprefix('uniformer_mm.') for entry in transforms]
    flip = ['Flip'] if name == K400 else []
    assert names == [
        'ClipRandAugment', 'ClipRandomResizedCrop', *flip, 'CubeErasing', 'FormatShape',
        'PackActionInputs',
    ]  # fmt: skip
    for entry in transforms:
        if entry['type'] == 'Flip':
            assert entry['flip_ratio'] == 0.5


def test_views_are_fused_as_summed_logits(load):
    cfg = load(K400)
    with in_scope(cfg):
        head = MODELS.build(cfg.model.cls_head)
    logits = torch.randn(8, 400) * 5
    fused = head.average_clip(logits, num_segs=4)
    summed = logits.view(2, 4, 400).sum(dim=1)
    assert torch.allclose(fused * 4, summed, atol=1e-4)


def test_erased_noise_is_standard_normal_for_the_network(load):
    """The transform's mean and deviation are those of the preprocessor that comes after it."""
    cfg = load(K400)
    erasing = cfg.train_dataloader.dataset.pipeline[-1].transforms[3]
    assert erasing['type'] == 'uniformer_mm.CubeErasing'
    assert erasing['prob'] == 0.25
    np.random.seed(0)
    with in_scope(cfg):
        transform = Compose([dict(erasing, prob=1.0)])
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
    clip = transform({'imgs': [np.zeros((64, 64, 3), np.float32) for _ in range(8)]})['imgs']
    x_NCTHW = torch.from_numpy(np.stack(clip)).permute(3, 0, 1, 2)[None]
    out = preprocessor({'inputs': [x_NCTHW], 'data_samples': []})['inputs'][0, 0]
    noise = out[x_NCTHW[0] != 0]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
