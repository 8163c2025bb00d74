# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN, UniFormer-S, hybrid attention with 14x14 windows, COCO 1x (12 epochs).

Row det/mask_rcnn_s_h14_1x: box AP 45.6, mask AP 41.6 on val2017 (published), 41 M parameters.

Train (one process; published with 8 GPUs x 2 images)::

    mim train mmdet configs/det/mask_rcnn_uniformer_s.py
    mim train mmdet configs/det/mask_rcnn_uniformer_s.py --launcher pytorch --gpus 8

Test, evaluating boxes and masks::

    mim test mmdet configs/det/mask_rcnn_uniformer_s.py --checkpoint CHECKPOINT

From random weights: ``--cfg-options model.backbone.init_cfg=None``. Without a GPU fp16 training is
not possible; add ``optim_wrapper.type=OptimWrapper``. With another batch size: ``--auto-scale-lr``.

BatchNorm in the backbone trains with the statistics of each GPU's 2 images and nothing is frozen,
as published. The authors recommend to freeze it: ``model.backbone.norm_eval=True``.
"""

_base_ = [
    '../_base_/det/mask_rcnn.py',
    '../_base_/det/coco_instance.py',
    '../_base_/det/schedule_1x.py',
    '../_base_/det/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        attention='hybrid',
        window_size=14,
        drop_path_rate=0.2,
        # The eight blocks of stage 3 are recomputed in the backward pass: slower, less memory.
        with_cp=(0, 0, 8, 0),
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
)
