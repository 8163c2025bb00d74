# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-S, ADE20K, 80k iterations, trained with global attention.

Row seg/fpn_s_g: mIoU 46.6 (published, single scale), 25 M parameters. The same weights with other
attention: fpn_uniformer_s_h32.py and fpn_uniformer_s_w32.py.

Train (one process; published with 8 GPUs x 4 images), then test::

    mim train mmseg configs/seg/fpn_uniformer_s.py
    mim train mmseg configs/seg/fpn_uniformer_s.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_s.py --checkpoint CHECKPOINT

From random weights: ``--cfg-options model.backbone.init_cfg=None``. With another batch size:
``--cfg-options auto_scale_lr.enable=True`` (mmseg has no option of its own for it).

BatchNorm in the backbone trains with the statistics of each GPU's 4 images and nothing is frozen,
as published. The authors recommend to freeze it: ``model.backbone.norm_eval=True``
(docs/options.md).
"""

_base_ = [
    '../_base_/seg/semantic_fpn.py',
    '../_base_/seg/ade20k.py',
    '../_base_/seg/schedule_fpn_80k.py',
    '../_base_/seg/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='small',
        attention='global',
        window_size=14,
        drop_path_rate=0.1,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
)

# Test images are stretched, not padded, to multiples of 32 (the recipe's AlignResize).
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=_base_.scale, keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
