# SPDX-License-Identifier: Apache-2.0
"""The lightweight models on Kinetics: clips, both logits, and a first step on real videos."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch.nn.functional import cross_entropy

from uniformer_mm.recipes import recipes

from ..conftest import SMALL_LIGHT
from .test_recipes import find, in_scope

CLIPS = [r for r in recipes() if r.arch in ('xxs', 'xs') and r.task == 'video']


def small(cfg: Config, classes: int) -> Config:
    """A tiny network that trains from random weights."""
    cfg.model.backbone.update(
        arch=SMALL_LIGHT, num_classes=classes, init_cfg=None, drop_path_rate=0.0, layer_scale=None
    )
    cfg.model.cls_head.num_classes = classes
    return cfg


@pytest.mark.parametrize('row', CLIPS, ids=lambda row: row.id)
def test_the_row_of_the_recipe(load, row) -> None:
    cfg, (frames, size) = load(Path(row.config).stem), map(int, row.flops_input.split('x'))
    assert row.row.views == '1x1'
    assert bool(row.row.layer_scale) == (row.id.rpartition('_')[2] in ('4x128', '4x160', '8x128'))
    assert cfg.model.backbone.get('layer_scale') == (0.1 if row.row.layer_scale else None)
    for split in ('train', 'val', 'test'):
        pipeline = cfg[f'{split}_dataloader'].dataset.pipeline
        sample = find(pipeline, 'SegmentSampleFrames')
        assert (sample.clip_len, sample.get('num_clips', 1)) == (frames, 1)
        assert sample.get('test_mode', False) == (split != 'train')
        assert 'RGBToBGR' not in str(pipeline)
        if split != 'train':
            assert find(pipeline, 'ClipShortSideResize').short_side == size
            crop = find(pipeline, 'ClipUniformCrop')
            assert (crop.size, crop.num_crops) == (size, 1)
    copies = find(cfg.train_dataloader.dataset.pipeline, 'AugmentedCopies')
    assert copies.num_copies == 2
    assert find(copies.transforms, 'ClipRandomResizedCrop').size == size
    assert find(copies.transforms, 'Flip').flip_ratio == 0.5
    augment = find(copies.transforms, 'ClipRandAugment')
    given = (augment.num_ops, augment.magnitude, augment.magnitude_std)
    if row.arch == 'xs':
        assert given == (4, 7, 0.5)
    else:
        mild = row.id.rpartition('_')[2] in ('8x160', '16x128', '16x160', '32x160')
        assert given == ((2, 5, 0.25) if mild else (2, 10, 0.0))
        assert augment.increasing is False


def test_views_and_one_step_on_clips(load, gesture_as_kinetics) -> None:
    classes = 400
    cfg = small(load('uniformer_xxs_8x128_k400'), classes)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.train_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with in_scope(cfg):
        model = MODELS.build(cfg.model).train()
        model.init_weights()
        test = DATASETS.build(cfg.test_dataloader.dataset)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    view = test[0]['inputs']
    assert view.shape == (1, 3, 8, 128, 128)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert {name for name, _ in model.named_parameters()} == {
        f'backbone.{name}' for name, _ in model.backbone.named_parameters()
    }
    losses = model.train_step(batch, wrapper)
    assert losses['loss'].item() == pytest.approx(math.log(classes), rel=0.1)
    for name, p in model.named_parameters():
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), f'{name} did not move'
    model.eval()
    sample = test[0]['data_samples']
    with torch.no_grad():
        inputs = view.float().div(114.75).sub(1)  # near what the preprocessor gives
        (predicted,) = model.predict(inputs[None], [sample])
        torch.testing.assert_close(predicted.pred_score, model.backbone(inputs)[0])


def test_loss_is_the_mean_of_both_heads(load) -> None:
    cfg = small(load('uniformer_xs_32x192_k400'), classes=5)
    torch.manual_seed(0)
    with in_scope(cfg):
        model = MODELS.build(cfg.model).train()
    from mmaction.structures import ActionDataSample

    x = torch.randn(3, 3, 4, 32, 32)
    labels = torch.tensor([0, 3, 4])
    samples = [ActionDataSample().set_gt_label(int(label)) for label in labels]
    losses = model.loss(x[:, None], samples)
    pooled, token = model.backbone(x)
    expected = sum(cross_entropy(y, labels, label_smoothing=0.1) / 2 for y in (pooled, token))
    torch.testing.assert_close(losses['loss_cls'], expected)
    # Accuracy is that of the logits that tests score.
    assert losses['top1_acc'] == (pooled.argmax(1) == labels).double().mean()


def test_middle_frames_of_the_segments(load) -> None:
    """round(i g) + int(g / 2) for g = (L - 1) / n, none of them beyond the last frame."""
    cfg = load('uniformer_xxs_16x160_k400')
    with in_scope(cfg):
        sample = TRANSFORMS.build(find(cfg.test_dataloader.dataset.pipeline, 'SegmentSampleFrames'))
    for total in (1, 5, 16, 17, 300):
        found = sample({'total_frames': total, 'start_index': 0})['frame_inds']
        g = (total - 1) / 16
        expected = [min(round(i * g) + int(g / 2), total - 1) for i in range(16)]
        assert found.tolist() == expected
