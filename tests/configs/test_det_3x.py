# SPDX-License-Identifier: Apache-2.0
"""What the 3x and cascade recipes add: scales and crops as in mmdet 2.11, the cascade's heads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from .test_det import DET, _mmdet_scope, build_model, coco_root, load, outline

pytest.importorskip('mmdet', reason='mmdet is not installed; make setup installs it')

__all__ = ['_mmdet_scope', 'coco_root']

MS_CROP = DET / 'mask_rcnn_uniformer_s_3x_ms.py'
CASCADE = DET / 'cascade_mask_rcnn_uniformer_s_3x_ms.py'
SHORT_SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]


class Photo:
    """A photo and its objects under mmdet 2.11's Resize, RandomFlip and RandomCrop, in NumPy."""

    def __init__(self, image: np.ndarray, boxes: np.ndarray, masks: list[np.ndarray]) -> None:
        self.image, self.boxes, self.masks = image, boxes, masks

    def flip(self) -> None:
        self.image = self.image[:, ::-1]
        self.masks = [mask[:, ::-1] for mask in self.masks]
        self.boxes[:, [0, 2]] = self.image.shape[1] - self.boxes[:, [2, 0]]

    def resize(self, short_side: int) -> None:
        height, width = self.image.shape[:2]
        ratio = min(1333 / max(height, width), short_side / min(height, width))
        size = int(width * ratio + 0.5), int(height * ratio + 0.5)
        self.image = cv2.resize(self.image, size, interpolation=cv2.INTER_LINEAR)
        nearest = cv2.INTER_NEAREST
        self.masks = [cv2.resize(mask, size, interpolation=nearest) for mask in self.masks]
        self.boxes = self.boxes * np.float32([size[0] / width, size[1] / height] * 2)
        self.clip()

    def crop(self, top: int, left: int, height: int, width: int) -> None:
        rows, columns = slice(top, top + height), slice(left, left + width)
        self.image = self.image[rows, columns]
        self.boxes = self.boxes - np.float32([left, top] * 2)
        self.clip()
        kept = (self.boxes[:, 2] > self.boxes[:, 0]) & (self.boxes[:, 3] > self.boxes[:, 1])
        self.boxes = self.boxes[kept]
        self.masks = [
            mask[rows, columns] for mask, keep in zip(self.masks, kept, strict=True) if keep
        ]

    def clip(self) -> None:
        height, width = self.image.shape[:2]
        self.boxes = self.boxes.clip(0, [width, height] * 2).astype(np.float32)


def draw_official(photo: Photo) -> str:
    """One pass of the official augmentation, drawing from NumPy's global generator."""
    if np.random.choice([True, False], p=[0.5, 0.5]):
        photo.flip()
    branch = ('whole', 'crop')[np.random.choice(np.arange(2))]
    if branch == 'crop':
        photo.resize([400, 500, 600][np.random.randint(3)])
        sides = photo.image.shape[:2]
        size = [np.random.randint(min(side, 384), min(side, 600) + 1) for side in sides]
        place = [np.random.randint(side - kept + 1) for side, kept in zip(sides, size, strict=True)]
        photo.crop(*place, *size)
    photo.resize(SHORT_SIDES[np.random.randint(len(SHORT_SIDES))])
    return branch


def read_photo(coco, image_id: int, folder: Path) -> Photo:
    """The photo, with the boxes and masks of its single objects, read by pycocotools."""
    (info,) = coco.loadImgs([image_id])
    objects = coco.loadAnns(coco.getAnnIds([image_id], iscrowd=False))
    corners = [(x, y, x + w, y + h) for x, y, w, h in (one['bbox'] for one in objects)]
    return Photo(
        cv2.imread(str(folder / info['file_name'])),
        np.array(corners, np.float32).reshape(-1, 4),
        [coco.annToMask(one) for one in objects],
    )


def test_scales_and_crops_are_mmdet_2_11_s_on_real_photos(coco_root: Path) -> None:
    from mmdet.registry import DATASETS
    from pycocotools.coco import COCO

    cfg = load(MS_CROP, coco_root).train_dataloader.dataset
    dataset = DATASETS.build(cfg)
    coco = COCO(f'{cfg.data_root}{cfg.ann_file}')
    branches = Counter()
    for index in range(24):
        np.random.seed(index)
        sample = dataset[index]
        photo = read_photo(
            coco, sample['data_samples'].img_id, Path(cfg.data_root, cfg.data_prefix['img'])
        )
        np.random.seed(index)
        branches[draw_official(photo)] += 1

        image = sample['inputs'].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image, photo.image)
        truth = sample['data_samples'].gt_instances
        np.testing.assert_allclose(truth.bboxes.tensor, photo.boxes, atol=1e-2)
        assert len(truth.masks) == len(truth.labels) == len(photo.masks)
        for found, expected in zip(truth.masks.masks, photo.masks, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert min(branches['whole'], branches['crop']) >= 6


def test_both_branches_are_as_likely_and_every_size_occurs() -> None:
    """300 draws of a 480x640 image with one object in its corner."""
    from mmdet.registry import TRANSFORMS
    from mmdet.structures.bbox import HorizontalBoxes

    (choice,) = [t for t in load(MS_CROP).train_pipeline if t.type == 'RandomChoice']
    transform = TRANSFORMS.build(choice)
    np.random.seed(0)
    whole, cropped, empty = Counter(), Counter(), 0
    for _ in range(300):
        sample = transform(
            dict(
                img=np.zeros((480, 640, 3), np.uint8),
                img_shape=(480, 640),
                gt_bboxes=HorizontalBoxes(torch.tensor([[0.0, 0.0, 20.0, 20.0]])),
                gt_bboxes_labels=np.array([3]),
                gt_ignore_flags=np.array([False]),
            )
        )
        assert sample is not None, 'a crop without objects stays in the batch'
        height, width = sample['img_shape']
        if abs(width / height - 640 / 480) < 0.01:
            whole[height] += 1
        else:
            cropped[min(height, width)] += 1
            assert max(height, width) <= 1333
            empty += len(sample['gt_bboxes']) == 0
    assert sorted(whole) == SHORT_SIDES
    # A crop is at most 600 / 384 times as long as wide: 1333 pixels never bind.
    assert set(cropped) <= set(SHORT_SIDES)
    assert sum(cropped.values()) / 300 == pytest.approx(0.5, abs=0.12)
    assert empty > 30


def test_testing_does_not_change() -> None:
    single, many = Config.fromfile(DET / 'mask_rcnn_uniformer_s.py'), Config.fromfile(MS_CROP)
    for key in ('test_dataloader', 'test_evaluator', 'optim_wrapper', 'auto_scale_lr'):
        assert single[key] == many[key]


def test_cascade_has_the_published_parameters() -> None:
    model = outline(load(CASCADE))

    def layer(inputs: int, outputs: int, kernel: int = 1) -> int:
        return inputs * outputs * kernel**2 + outputs

    fpn, classes = 256, 80
    neck = sum(layer(dim, fpn) for dim in (64, 128, 320, 512)) + 4 * layer(fpn, fpn, 3)
    rpn = layer(fpn, fpn, 3) + layer(fpn, 3) + layer(fpn, 4 * 3)
    # Four convolutions without bias, each with the two vectors of its SyncBN.
    box = 4 * (fpn * fpn * 9 + 2 * fpn) + layer(fpn * 7 * 7, 1024)
    box += layer(1024, classes + 1) + layer(1024, 4 * classes)
    mask = 4 * layer(fpn, fpn, 3) + layer(fpn, fpn, 2) + layer(fpn, classes)
    total = sum(p.numel() for p in model.parameters())
    assert total == 21_033_280 + neck + rpn + 3 * box + 3 * mask
    assert round(total / 1e6) == 79
    base = outline(load(DET / 'cascade_mask_rcnn_uniformer_b_3x_ms.py'))
    larger = sum(p.numel() for p in base.parameters())
    assert larger - total == 49_264_576 - 21_033_280
    assert round(larger / 1e6) == 107


def test_cascade_differs_from_mask_rcnn_where_the_recipe_says() -> None:
    cfg = load(CASCADE)
    model = outline(cfg)
    head = model.roi_head
    assert (head.num_stages, head.stage_loss_weights) == (3, [1, 0.5, 0.25])
    assert [a.pos_iou_thr for a in head.bbox_assigner] == [0.5, 0.6, 0.7]
    assert [a.neg_iou_thr for a in head.bbox_assigner] == [0.5, 0.6, 0.7]
    assert not any(a.match_low_quality for a in head.bbox_assigner)
    stds = [box.bbox_coder.stds for box in head.bbox_head]
    assert stds == [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    for box in head.bbox_head:
        norms = [m for m in box.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert len(norms) == 4
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert model.rpn_head.loss_bbox.beta == pytest.approx(1 / 9)
    assert cfg.model.train_cfg.rpn.allowed_border == 0
    assert cfg.model.train_cfg.rpn_proposal.nms_pre == 2000
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == 2000
    assert cfg.model.test_cfg.rpn.max_per_img == 1000


def giou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Generalised IoU of paired boxes (n, 4), arXiv 1902.09630 algorithm 1."""

    def area(box: np.ndarray) -> np.ndarray:
        return (box[:, 2:] - box[:, :2]).clip(0).prod(1)

    low, high = np.maximum(a, b), np.minimum(a, b)
    shared = area(np.hstack([low[:, :2], high[:, 2:]]))
    hull = area(np.hstack([high[:, :2], low[:, 2:]]))
    union = area(a) + area(b) - shared
    return shared / union - (hull - union) / hull


@pytest.mark.parametrize('stage', [0, 1, 2])
def test_cascade_learns_giou_of_decoded_boxes_of_the_right_class(stage: int) -> None:
    from mmdet.registry import MODELS

    head = MODELS.build(load(CASCADE).model.roi_head.bbox_head[stage])
    rng = np.random.RandomState(stage)
    corners = rng.uniform(0, 100, (6, 2))
    rois = np.hstack([corners, corners + rng.uniform(20, 60, (6, 2))])
    truth = rois + rng.uniform(-8, 8, (6, 4))
    labels = rng.randint(0, 80, 6)
    # The last two are background and teach the box nothing.
    labels[4:] = 80
    deltas = rng.normal(0, 0.5, (6, 80, 4))

    own = deltas[np.arange(4), labels[:4]] * head.bbox_coder.stds
    size = rois[:4, 2:] - rois[:4, :2]
    centre = (rois[:4, 2:] + rois[:4, :2]) / 2 + own[:, :2] * size
    half = size * np.exp(own[:, 2:]) / 2
    expected = 10 * (1 - giou(np.hstack([centre - half, centre + half]), truth[:4])).sum() / 6

    weights = torch.tensor(labels < 80).float()
    losses = head.loss(
        torch.zeros(6, 81),
        torch.tensor(deltas).float().flatten(1),
        torch.tensor(np.hstack([np.zeros((6, 1)), rois])).float(),
        torch.tensor(labels),
        torch.ones(6),
        torch.tensor(truth).float(),
        weights[:, None].expand(6, 4),
    )
    assert losses['loss_bbox'].item() == pytest.approx(expected, rel=1e-4)


def test_one_cascade_step_on_real_photos_is_finite_and_reaches_every_parameter(
    coco_root: Path,
) -> None:
    """The recipe's stages and losses with thin layers, on photos of 160 pixels."""
    cfg = load(CASCADE, coco_root)
    cfg.train_pipeline[3] = dict(type='Resize', scale=(160, 128), keep_ratio=True)
    cfg.train_dataloader.dataset.pipeline = cfg.train_pipeline
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.model.backbone.update(
        arch=dict(depths=(1, 1, 4, 1), dims=(16, 32, 64, 64), head_dim=32),
        drop_path_rate=0.0,
        with_cp=(0, 0, 4, 0),
    )
    cfg.model.neck.update(in_channels=[16, 32, 64, 64], out_channels=32)
    cfg.model.rpn_head.update(in_channels=32, feat_channels=32)
    head = cfg.model.roi_head
    for extractor in (head.bbox_roi_extractor, head.mask_roi_extractor):
        extractor.out_channels = 32
    for box_head in head.bbox_head:
        box_head.update(in_channels=32, fc_out_channels=32, conv_out_channels=32)
    head.mask_head.update(in_channels=32, conv_out_channels=32)
    cfg.model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=100)
    for rcnn in cfg.model.train_cfg.rcnn:
        rcnn.sampler.num = 16
    model = revert_sync_batchnorm(build_model(cfg)).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(loader)), training=True)
    total, logged = model.parse_losses(model(**data, mode='loss'))
    stages = {f's{stage}.{name}' for stage in range(3) for name in ('loss_bbox', 'loss_mask')}
    assert stages <= set(logged)
    assert torch.isfinite(total)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.backward(total)
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, 'DDP would wait for these for ever'
    wrapper.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    moved = sum(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert moved > 0.9 * len(before)
