# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN with a small UniFormer on the synthetic rooms and streets: minutes on two CPU cores.

The same classes and code path as ``fpn_uniformer_s.py`` (global attention, FPN, ADE20K's reader,
crops, stretching to multiples of 32, mIoU) on small pictures, from random weights::

    uniformer-mm make-data data
    mim train mmseg configs/seg/quickstart.py

What differs from the real recipe: the arch, narrower heads, image and crop size, batch, learning
rate and length.
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/seg/semantic_fpn.py',
    '../_base_/seg/ade20k.py',
    '../_base_/seg/schedule_fpn_80k.py',
    '../_base_/seg/runtime.py',
]

# The synthetic world's classes are the first of ADE20K's.
classes = ('wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road')
channels = 64
scale = (240, 160)
crop_size = (128, 128)
batch_size = 8
iterations = 300

model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, size=crop_size),
    backbone=dict(arch=_base_.quickstart_arch, attention='global'),
    neck=dict(in_channels=list(_base_.quickstart_arch.dims), out_channels=channels),
    decode_head=dict(
        in_channels=[channels] * 4,
        channels=channels,
        num_classes=len(classes),
        norm_cfg=dict(type='BN'),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    dataset=dict(metainfo=dict(classes=classes), pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(metainfo=dict(classes=classes), pipeline=test_pipeline),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50 + 1),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-8, by_epoch=False, begin=0, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 3)
auto_scale_lr = dict(base_batch_size=batch_size)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=iterations // 3, max_keep_ckpts=2)
)
randomness = dict(seed=0)
