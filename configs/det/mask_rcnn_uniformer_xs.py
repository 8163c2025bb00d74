# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN, UniFormer-XS (hourglass blocks), COCO 1x (12 epochs).

Row det/mask_rcnn_xs_1x: box AP 44.6, mask AP 40.9 on val2017 (published), 35.6 M parameters.

Train (published with 8 GPUs x 2 images), in fp32 as published::

    mim train mmdet configs/det/mask_rcnn_uniformer_xs.py
    mim train mmdet configs/det/mask_rcnn_uniformer_xs.py --launcher pytorch --gpus 8

Test, evaluating boxes and masks::

    mim test mmdet configs/det/mask_rcnn_uniformer_xs.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/det/mask_rcnn.py',
    '../_base_/det/coco_instance.py',
    '../_base_/det/schedule_1x.py',
    '../_base_/det/runtime.py',
]

model = dict(
    backbone=dict(
        arch='xs',
        drop_path_rate=0.15,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://xs_224_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(type='OptimWrapper')
