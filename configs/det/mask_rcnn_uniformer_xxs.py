# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN, UniFormer-XXS (hourglass blocks), COCO 1x (12 epochs).

Row det/mask_rcnn_xxs_1x: box AP 42.8, mask AP 39.2 on val2017 (published), 29.4 M parameters.

Train (published with 8 GPUs x 2 images), in fp32 as published::

    mim train mmdet configs/det/mask_rcnn_uniformer_xxs.py
    mim train mmdet configs/det/mask_rcnn_uniformer_xxs.py --launcher pytorch --gpus 8

Test, evaluating boxes and masks::

    mim test mmdet configs/det/mask_rcnn_uniformer_xxs.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/det/mask_rcnn.py',
    '../_base_/det/coco_instance.py',
    '../_base_/det/schedule_1x.py',
    '../_base_/det/runtime.py',
]

model = dict(
    backbone=dict(
        arch='xxs',
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://xxs_224_in1k'),
    ),
    neck=dict(in_channels=[56, 112, 224, 448]),
)
optim_wrapper = dict(type='OptimWrapper')
