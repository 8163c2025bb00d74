# SPDX-License-Identifier: Apache-2.0
"""The ImageNet configs of XXS and XS beyond what all configs share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from PIL import Image
from torch.nn.functional import log_softmax

from uniformer_mm.recipes import recipes

from ..conftest import SMALL_LIGHT
from ..datasets.test_recipes import find
from .leaves import load, toolbox

IMAGES = [r for r in recipes() if r.arch in ('xxs', 'xs') and r.task == 'cls']
# timm 0.4.12, "v0": name, probability, level of 10; two operations for each of 25 policies.
POLICIES = """
Equalize 0.8 1, ShearY 0.8 4
Color 0.4 9, Equalize 0.6 3
Color 0.4 1, Rotate 0.6 8
Solarize 0.8 3, Equalize 0.4 7
Solarize 0.4 2, Solarize 0.6 2
Color 0.2 0, Equalize 0.8 8
Equalize 0.4 8, SolarizeAdd 0.8 3
ShearX 0.2 9, Rotate 0.6 8
Color 0.6 1, Equalize 1.0 2
Invert 0.4 9, Rotate 0.6 0
Equalize 1.0 9, ShearY 0.6 3
Color 0.4 7, Equalize 0.6 0
Posterize 0.4 6, AutoContrast 0.4 7
Solarize 0.6 8, Color 0.6 9
Solarize 0.2 4, Rotate 0.8 9
Rotate 1.0 7, TranslateYRel 0.8 9
ShearX 0.0 0, Solarize 0.8 4
ShearY 0.8 0, Color 0.6 4
Color 1.0 0, Rotate 0.6 2
Equalize 0.8 4, Equalize 0.0 8
Equalize 1.0 4, AutoContrast 0.6 2
ShearY 0.4 7, SolarizeAdd 0.6 7
Posterize 0.8 2, Solarize 0.6 10
Solarize 0.6 8, Equalize 0.6 1
Color 0.8 6, Rotate 0.4 5
"""
# Name in mmpretrain, its argument, and timm's formula for a level of 1.
KINDS = {
    'ShearX': ('Shear', 'magnitude', lambda s: 0.3 * s),
    'ShearY': ('Shear', 'magnitude', lambda s: 0.3 * s),
    'TranslateYRel': ('Translate', 'magnitude', lambda s: 0.45 * s),
    'Rotate': ('Rotate', 'angle', lambda s: 30 * s),
    # Of the factor mmpretrain wants what is above 1.
    'Color': ('ColorTransform', 'magnitude', lambda s: 1.8 * s + 0.1 - 1),
    'Posterize': ('Posterize', 'bits', lambda s: int(4 * s)),
    'Solarize': ('Solarize', 'thr', lambda s: int(256 * s)),
    'SolarizeAdd': ('SolarizeAdd', 'magnitude', lambda s: int(110 * s)),
    'Equalize': ('Equalize', None, None),
    'AutoContrast': ('AutoContrast', None, None),
    'Invert': ('Invert', None, None),
}


def in_scope(leaf: str):
    return DefaultScope.overwrite_default_scope(toolbox(leaf.partition('/')[0]))


@pytest.mark.parametrize('row', IMAGES, ids=lambda row: row.id)
def test_images_in_training(row) -> None:
    cfg, size = load(row.config), int(row.row.size)
    kinds = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    policy = {'xxs': 'AutoAugment', 'xs': 'RandAugment'}[row.arch]
    assert kinds == [
        'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', policy, 'RandomErasing',
        'PackInputs',
    ]  # fmt: skip
    assert find(cfg.train_dataloader.dataset.pipeline, 'RandomResizedCrop').scale == size
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    assert cfg.train_dataloader.drop_last
    (average,) = cfg.custom_hooks
    assert average.type == 'uniformer_mm.TrackedEMAHook'
    assert average.momentum == pytest.approx(1 - 0.9999)
    assert cfg.model.train_cfg == load('cls/uniformer_s_in1k.py').model.train_cfg
    with in_scope(row.config):
        TRANSFORMS.build(find(cfg.train_dataloader.dataset.pipeline, policy))


def test_the_list_of_auto_augment() -> None:
    cfg = load('cls/uniformer_xxs_192_in1k.py')
    given = find(cfg.train_dataloader.dataset.pipeline, 'AutoAugment').policies
    expected = [line.split(', ') for line in POLICIES.strip().splitlines()]
    assert len(given) == len(expected) == 25
    for ops, words in zip(given, expected, strict=True):
        for op, (name, prob, level) in zip(ops, (w.split() for w in words), strict=True):
            kind, argument, formula = KINDS[name]
            assert (op.type, op.prob) == (kind, float(prob))
            if argument:
                assert op[argument] == pytest.approx(formula(int(level) / 10)), (name, level)
            if kind in ('Shear', 'Translate', 'Rotate'):
                # timm turns the mean in RGB, 0.485, 0.456 and 0.406, to integers.
                assert (op.pad_val, op.interpolation) == ([104, 116, 124], 'bicubic')
            if kind in ('Shear', 'Translate'):
                assert op.direction == ('horizontal' if 'X' in name else 'vertical')
            # Colour only moves one way; shears and turns move both ways.
            if kind == 'ColorTransform':
                assert op.random_negative_prob == 0
            else:
                assert 'random_negative_prob' not in op


def test_every_pair_of_operations_runs() -> None:
    cfg = load('cls/uniformer_xxs_128_in1k.py')
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with in_scope('cls/'):
        for ops in find(cfg.train_dataloader.dataset.pipeline, 'AutoAugment').policies:
            results = {'img': image.copy()}
            for op in ops:
                results = TRANSFORMS.build(dict(op, prob=1.0))(results)
            assert results['img'].shape == image.shape
            assert results['img'].dtype == np.uint8


@pytest.mark.parametrize('row', IMAGES, ids=lambda row: row.id)
def test_images_in_tests(row, tmp_path: Path) -> None:
    """The official resize, int(256 / 224 * size), and the middle, against Pillow."""
    cfg, size = load(row.config), int(row.row.size)
    edge = {128: 146, 160: 182, 192: 219, 224: 256}[size]
    photo = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (edge + 64, edge, 3), dtype=np.uint8)
    )
    photo.save(tmp_path / 'photo.png')
    results = {'img_path': str(tmp_path / 'photo.png')}
    with in_scope(row.config):
        for step in cfg.test_dataloader.dataset.pipeline:
            results = TRANSFORMS.build(step)(results)
    # The short side has the right length already, so the photo is not resampled.
    top, left = round((edge + 64 - size) / 2), round((edge - size) / 2)
    expected = np.asarray(photo)[top : top + size, left : left + size, ::-1]
    assert np.array_equal(results['inputs'].permute(1, 2, 0).numpy(), expected)


def test_image_loss_is_the_mean_of_both_heads() -> None:
    from mmpretrain.structures import DataSample

    leaf, classes = 'cls/uniformer_xxs_128_in1k.py', 7
    cfg = load(leaf)
    cfg.model.backbone.update(arch=SMALL_LIGHT, num_classes=classes)
    cfg.model.head.update(num_classes=classes, loss=dict(cfg.model.head.loss, num_classes=classes))
    torch.manual_seed(0)
    with in_scope(leaf):
        model = MODELS.build(cfg.model).train()
    x, target = torch.randn(4, 3, 64, 64), torch.rand(4, classes).softmax(1)
    samples = [DataSample().set_gt_score(row) for row in target]
    (loss,) = model.loss(x, samples).values()
    pooled, token = model.backbone(x)
    smooth = 0.9 * target + 0.1 / classes
    expected = sum(-(smooth * log_softmax(y, 1)).sum(1).mean() / 2 for y in (pooled, token))
    assert not torch.allclose(pooled, token)
    torch.testing.assert_close(loss, expected)
    model.eval()
    with torch.no_grad():
        (scores,) = {tuple(s.pred_score.tolist()) for s in model.predict(x[:1], samples[:1])}
        expected = model.backbone(x[:1])[0].softmax(1)[0]
        assert torch.equal(model(x[:1], mode='tensor'), model.backbone(x[:1])[0])
    torch.testing.assert_close(torch.tensor(scores), expected)
