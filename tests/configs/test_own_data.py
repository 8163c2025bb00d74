# SPDX-License-Identifier: Apache-2.0
"""The configs of docs/own-data.md: each loads, reads a data set laid out as told, and fits it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from uniformer_mm.weights.zoo import find_row

from ..conftest import ROOT
from .leaves import SCOPES, toolbox

PAGE = (ROOT / 'docs/own-data.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
BASE = re.compile(r"^_base_ = '\./configs/(.+)'$", re.MULTILINE)
LEAVES = {BASE.search(block)[1]: block for block in BLOCKS}
DET = [base for base in LEAVES if base.startswith('det/')]
# Classes, or joints, that the page's config says.
CLASSES = {'det': 3, 'seg': 3, 'pose': 4, 'video': 3, 'cls': 2}
IMAGES = 3


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(0).randint(0, 256, (96, 128, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def coco(root: Path, names: tuple[str, ...], joints: int = 0) -> None:
    """Pictures with an object of each class, ids as odd as in real files."""
    for split in ('train', 'val'):
        images, objects = [], []
        for image in range(1, IMAGES + 1):
            picture(root / split / f'{image}.jpg')
            images.append(dict(id=image, file_name=f'{image}.jpg', width=128, height=96))
            for index in range(len(names)):
                x, y, side = 10 + 35 * index, 20, 32
                one = dict(
                    id=len(objects) + 1,
                    image_id=image,
                    category_id=7 * index + 5,
                    bbox=[x, y, side, side],
                    area=side**2,
                    iscrowd=0,
                    segmentation=[[x, y, x + side, y, x + side, y + side, x, y + side]],
                )
                if joints:
                    one |= dict(keypoints=[x + 4, y + 4, 2] * joints, num_keypoints=joints)
                objects.append(one)
        categories = [dict(id=7 * index + 5, name=name) for index, name in enumerate(names)]
        content = dict(images=images, annotations=objects, categories=categories)
        (root / f'{split}.json').write_text(json.dumps(content))


def write_det(data: Path) -> None:
    coco(data / 'fruit', ('lemon', 'pear', 'plum'))


def write_seg(data: Path) -> None:
    for split in ('train', 'val'):
        labels = data / 'roads/labels' / split
        labels.mkdir(parents=True)
        for index in range(IMAGES):
            picture(data / 'roads/images' / split / f'{index}.jpg')
            label_map = np.arange(96 * 128).reshape(96, 128) % 3
            assert cv2.imwrite(str(labels / f'{index}.png'), label_map.astype(np.uint8))


def write_pose(data: Path) -> None:
    coco(data / 'birds', ('bird',), joints=4)


def write_video(data: Path) -> None:
    path = data / 'gestures/videos/wave/001.mp4'
    path.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, (128, 96))
    for shade in range(20):
        writer.write(np.full((96, 128, 3), 10 * shade, np.uint8))
    writer.release()
    for split in ('train', 'val'):
        lines = [f'wave/001.mp4 {index}\n' for index in range(IMAGES)]
        (data / 'gestures' / f'{split}.txt').write_text(''.join(lines))


def write_cls(data: Path) -> None:
    for split in ('train', 'val'):
        for index, name in enumerate(('rose', 'tulip', 'tulip')):
            picture(data / 'flowers' / split / name / f'{index}.jpg')


WRITERS = dict(det=write_det, seg=write_seg, pose=write_pose, video=write_video, cls=write_cls)


def read_leaf(text: str, folder: Path) -> Config:
    """The page's config as ``mine.py`` in ``folder``, its base in this clone."""
    path = folder / 'mine.py'
    path.write_text(text.replace("'./configs/", f"'{ROOT.as_posix()}/configs/"))
    return Config.fromfile(path)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/`` of a working directory, and no other data anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('UNIFORMER_DATA', raising=False)
    return tmp_path / 'data'


def outline(cfg: Config, scope: str) -> nn.Module:
    """The network without memory behind its parameters."""
    with torch.device('meta'), DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg.model)


def task_of(base: str) -> str:
    return base.partition('/')[0]


def test_every_block_is_a_config_and_every_toolbox_has_one() -> None:
    assert len(LEAVES) == len(BLOCKS)
    assert {task_of(base) for base in LEAVES} == set(SCOPES)
    assert any('cascade' in base for base in DET)


@pytest.mark.parametrize('base', LEAVES)
def test_heads_have_the_classes_of_the_data(base: str, tmp_path: Path) -> None:
    task = task_of(base)
    scope, count = toolbox(task), CLASSES[task]
    model = outline(read_leaf(LEAVES[base], tmp_path), scope)
    if task == 'det':
        boxes, masks = model.roi_head.bbox_head, model.roi_head.mask_head
        boxes = list(boxes) if isinstance(boxes, nn.ModuleList) else [boxes]
        masks = list(masks) if isinstance(masks, nn.ModuleList) else [masks]
        assert len(boxes) == len(masks) == (3 if 'cascade' in base else 1)
        widths = [(box.fc_cls.out_features, box.fc_reg.out_features) for box in boxes]
        assert set(widths) == {(count + 1, 4 * count)}
        assert {mask.conv_logits.out_channels for mask in masks} == {count}
    elif task == 'seg':
        assert model.decode_head.conv_seg.out_channels == count
    elif task == 'pose':
        assert model.head.final_layer.out_channels == count
    elif task == 'video':
        assert model.cls_head.fc_cls.out_features == count
        mixes = model.data_preprocessor.blending.augments
        assert [mix.num_classes for mix in mixes] == [count] * 2
    else:
        assert model.head.fc.out_features == count
        assert model.data_preprocessor.num_classes == count


def test_a_cascade_s_heads_differ_from_the_recipe_s_in_the_classes_alone(tmp_path: Path) -> None:
    (base,) = [base for base in DET if 'cascade' in base]
    own = read_leaf(LEAVES[base], tmp_path).model.roi_head.to_dict()
    recipe = Config.fromfile(ROOT / 'configs' / base).model.roi_head.to_dict()
    for head in (*own['bbox_head'], own['mask_head']):
        assert head['num_classes'] == CLASSES['det']
        head['num_classes'] = 80
    assert own == recipe


@pytest.mark.parametrize('base', LEAVES)
def test_data_laid_out_as_the_page_says_are_read(base: str, data: Path) -> None:
    """Every split, to its last transform, and every path of the evaluator."""
    task = task_of(base)
    scope = toolbox(task)
    WRITERS[task](data)
    cfg = read_leaf(LEAVES[base], data.parent)
    with DefaultScope.overwrite_default_scope(scope):
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            dataset = DATASETS.build(cfg[name].dataset)
            assert len(dataset) == IMAGES, name
            assert dataset[0], name
            if task in ('det', 'seg', 'cls'):
                assert len(dataset.metainfo['classes']) == CLASSES[task], name
        Runner.build_evaluator(None, cfg.val_evaluator)
        Runner.build_evaluator(None, cfg.test_evaluator)
    left = re.findall(r'data/(?:coco|ade|ucf101|kinetics400|imagenet)\b', str(used(cfg)))
    assert not left


def used(cfg: Config) -> list:
    """What a run reads of a config's paths; variables of the bases do not count."""
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[name].to_dict() for name in (*names, 'val_evaluator', 'test_evaluator')]


@pytest.mark.parametrize('base', LEAVES)
def test_rate_and_weights_are_those_of_the_batch_and_the_zoo(base: str, tmp_path: Path) -> None:
    """The rate is the recipe's in proportion; classification starts from weights, so lower."""
    own = read_leaf(LEAVES[base], tmp_path)
    recipe = Config.fromfile(ROOT / 'configs' / base)
    batch = own.train_dataloader.batch_size
    assert own.auto_scale_lr.base_batch_size == batch
    share = batch / recipe.auto_scale_lr.base_batch_size
    expected = share * recipe.optim_wrapper.optimizer.lr
    if task_of(base) == 'cls':
        expected /= 10
    assert own.optim_wrapper.optimizer.lr == pytest.approx(expected)
    assert own.model.backbone.init_cfg.type == 'UniFormerPretrained'
    row = find_row(own.model.backbone.init_cfg.checkpoint)
    assert (row.arch, row.released) == (own.model.backbone.arch, True)


def thin(cfg: Config) -> None:
    """Layers and pictures of little work; classes, losses and data are the page's."""
    dims, width = [16, 32, 64, 64], 32
    model = cfg.model
    model.backbone.update(
        arch=dict(depths=(1, 1, 4, 1), dims=tuple(dims), head_dim=32), with_cp=(0, 0, 4, 0)
    )
    model.backbone.init_cfg = None
    model.neck.update(in_channels=dims, out_channels=width)
    model.rpn_head.update(in_channels=width, feat_channels=width)
    head = model.roi_head
    for extractor in (head.bbox_roi_extractor, head.mask_roi_extractor):
        extractor.out_channels = width
    boxes = head.bbox_head if isinstance(head.bbox_head, list) else [head.bbox_head]
    for box in boxes:
        box.update(in_channels=width, fc_out_channels=width)
        if 'conv_out_channels' in box:
            box.conv_out_channels = width
    head.mask_head.update(in_channels=width, conv_out_channels=width)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[:] = [step for step in pipeline if step.type not in ('RandomChoice', 'Resize')]
    pipeline.insert(2, dict(type='Resize', scale=(128, 128), keep_ratio=True))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)


@pytest.mark.parametrize('base', DET)
def test_a_batch_of_own_classes_has_a_finite_loss(base: str, data: Path) -> None:
    scope = toolbox('det')
    write_det(data)
    cfg = read_leaf(LEAVES[base], data.parent)
    thin(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
        model.init_weights()
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    labels = {int(x) for sample in batch['data_samples'] for x in sample.gt_instances.labels}
    assert labels == set(range(CLASSES['det']))
    loss, logged = model.parse_losses(
        model(**model.data_preprocessor(batch, training=True), mode='loss')
    )
    assert torch.isfinite(loss)
    masks = [value for name, value in logged.items() if name.endswith('loss_mask')]
    assert masks
    assert all(value > 0 for value in masks)


def test_without_metainfo_the_set_is_empty_as_the_page_says(data: Path) -> None:
    scope = toolbox('det')
    write_det(data)
    text = LEAVES['det/mask_rcnn_uniformer_s.py']
    cfg = read_leaf(text.replace('metainfo=dict(classes=classes),', ''), data.parent)
    with (
        DefaultScope.overwrite_default_scope(scope),
        pytest.raises(ValueError, match='need at least one array to concatenate'),
    ):
        DATASETS.build(cfg.train_dataloader.dataset)
    assert '`need at least one array to concatenate`' in PAGE


def test_a_dict_over_the_cascade_s_list_fails_as_the_page_says(tmp_path: Path) -> None:
    (base,) = [base for base in DET if 'cascade' in base]
    change = 'model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))'
    with pytest.raises(TypeError, match=r'^bbox_head=.* in child config cannot inherit from base'):
        read_leaf(f"_base_ = './configs/{base}'\n{change}\n", tmp_path)
    words = '`bbox_head=... in child config cannot inherit from base`'
    assert words in ' '.join(PAGE.split())
