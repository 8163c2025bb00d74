# SPDX-License-Identifier: Apache-2.0
"""Mixup and CutMix: pairs, weights, boxes; through mmaction2's preprocessor and head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from uniformer_mm.datasets.video import MirrorCutmix, MirrorMixup

B, K = 6, 5


@pytest.fixture
def batch():
    torch.manual_seed(0)
    np.random.seed(0)
    x_BNCTHW = torch.rand(B, 1, 3, 2, 20, 30, dtype=torch.float64)
    label_BK = torch.nn.functional.one_hot(torch.arange(B) % K, K)
    return x_BNCTHW, label_BK


def test_mixup_is_the_mean_with_the_mirrored_batch_and_one_weight(batch):
    x, label = batch
    weights = []
    for _ in range(300):
        mixed, target = MirrorMixup(alpha=0.8, num_classes=K).do_blending(x, label)
        weight = float((mixed[0, 0, 0, 0, 0, 0] - x[5, 0, 0, 0, 0, 0])
                       / (x[0, 0, 0, 0, 0, 0] - x[5, 0, 0, 0, 0, 0]))  # fmt: skip
        for i in range(B):
            assert torch.allclose(mixed[i], weight * x[i] + (1 - weight) * x[B - 1 - i])
            expected = weight * label[i] + (1 - weight) * label[B - 1 - i]
            assert torch.allclose(target[i].double(), expected.double(), atol=1e-6)
        weights.append(weight)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert abs(np.mean(weights) - 0.5) < 0.05
    assert abs(np.std(weights) - math.sqrt(1 / (4 * 2.6))) < 0.03


def test_cutmix_pastes_one_box_and_weighs_by_its_area(batch):
    x, label = batch
    areas = []
    for _ in range(300):
        before = x.clone()
        mixed, target = MirrorCutmix(alpha=1.0, num_classes=K).do_blending(x, label)
        assert torch.equal(x, before)
        other = (mixed != x).any(dim=(0, 1, 2, 3))
        area = int(other.sum())
        if area:
            rows, columns = (torch.nonzero(other.any(dim=axis)).flatten() for axis in (1, 0))
            assert len(rows) * len(columns) == area, 'a full box'
        for i in range(B):
            assert torch.equal(mixed[i], torch.where(other, x[B - 1 - i], x[i]))
            left = 1 - area / (20 * 30)
            expected = left * label[i] + (1 - left) * label[B - 1 - i]
            assert torch.allclose(target[i].double(), expected.double(), atol=1e-6)
        areas.append(area / 600)
    # A side of share s keeps s - s^2 / 4 on average after clipping, and s^2 is uniform:
    # the mean area is 1/2 - 1/5 + 1/48.
    assert abs(np.mean(areas) - 0.32) < 0.04


@pytest.mark.parametrize('weight', [0.0, 0.3, 0.9])
def test_cutmix_box(weight):
    np.random.seed(0)
    cut_h, cut_w = (int(side * math.sqrt(1 - weight)) // 2 * 2 for side in (40, 60))
    boxes = [MirrorCutmix.random_box(40, 60, weight) for _ in range(400)]
    for top, bottom, left, right in boxes:
        assert 0 <= top <= bottom <= 40
        assert 0 <= left <= right <= 60
        clipped = top == 0 or bottom == 40 or left == 0 or right == 60
        assert clipped or (bottom - top, right - left) == (cut_h, cut_w)
    assert {box[0] for box in boxes} >= {0}
    assert max(box[1] for box in boxes) == 40


def test_official_targets_come_out_of_preprocessor_and_head(batch):
    """0.9 * mixed one-hot + 0.1 / K, on a batch of copies side by side."""
    pytest.importorskip('mmaction')
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample
    from mmaction.utils import register_all_modules

    register_all_modules()
    blending = dict(
        type='RandomBatchAugment',
        augments=[
            dict(type='uniformer_mm.MirrorMixup', alpha=0.8, num_classes=K),
            dict(type='uniformer_mm.MirrorCutmix', alpha=1.0, num_classes=K),
        ],
    )
    preprocessor = MODELS.build(
        dict(
            type='ActionDataPreprocessor',
            mean=[114.75] * 3,
            std=[57.375] * 3,
            format_shape='NCTHW',
            blending=blending,
        )
    )
    head = MODELS.build(
        dict(
            type='I3DHead',
            num_classes=K,
            in_channels=8,
            dropout_ratio=0.0,
            label_smooth_eps=0.1,
        )
    )
    kinds = []
    for seed in range(12):
        np.random.seed(seed)
        torch.manual_seed(seed)
        clips = [torch.randint(0, 256, (1, 3, 2, 8, 8)).float() for _ in range(4)]
        classes = [1, 1, 3, 3]
        samples = [ActionDataSample().set_gt_label(label) for label in classes]
        out = preprocessor({'inputs': clips, 'data_samples': samples}, training=True)
        x = (torch.stack(clips) / 255 - 0.45) / 0.225
        mixed, target = out['inputs'], torch.stack([s.gt_label for s in out['data_samples']])
        weight = float(target[0, 1])
        assert torch.allclose(target.sum(1), torch.ones(4))
        assert torch.allclose(target[2], torch.tensor([0, 1 - weight, 0, weight, 0]))
        is_mixup = torch.allclose(mixed, weight * x + (1 - weight) * x.flip(0), atol=1e-4)
        either = ((mixed - x).abs() < 1e-4) | ((mixed - x.flip(0)).abs() < 1e-4)
        assert is_mixup or either.all(), 'neither mixup nor cutmix'
        kinds.append(is_mixup)

        feature = torch.randn(4, 8, 1, 1, 1)
        logits = head(feature).double()
        smoothed = 0.9 * target.double() + 0.1 / K
        expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
        loss = head.loss(feature, out['data_samples'])['loss_cls']
        assert torch.isclose(loss.double(), expected, atol=1e-6)
    assert 0 < sum(kinds) < 12, 'both blendings take place'


def test_wrong_alpha():
    with pytest.raises(ValueError, match='alpha=0 must be positive'):
        MirrorMixup(alpha=0, num_classes=K)
