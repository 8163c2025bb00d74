# SPDX-License-Identifier: Apache-2.0
"""A small UniFormer on the synthetic textured shapes (9 classes), on two CPU cores.

The model family, loss and schedule of ``uniformer_s_in1k.py`` at 64 pixels, with one copy of each
image, milder crops, and flips both ways instead of RandAugment and mixing: 60 epochs of 603 images
are all there is. Chance is 11.1 % top-1.

    uniformer-mm make-data data
    mim train mmpretrain configs/cls/quickstart.py
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/cls/uniformer.py',
    '../_base_/cls/imagenet.py',
    '../_base_/cls/schedule_300e.py',
    '../_base_/cls/runtime.py',
]

num_classes = 9
size = 64
epochs = 60

model = dict(
    data_preprocessor=dict(_base_.data_preprocessor, num_classes=num_classes),
    backbone=dict(arch=_base_.quickstart_arch),
    head=dict(num_classes=num_classes, in_channels=_base_.quickstart_arch['dims'][-1]),
    train_cfg=None,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=size,
        crop_ratio_range=(0.6, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=size * 256 // 224,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
# The classes are the folders' names, as in the ImageNet config, but read from the disk.
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=_base_.data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32 * 3 // 2,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=_base_.data_root,
        data_prefix='val',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(total=epochs, warmup=3)
train_cfg = dict(max_epochs=epochs, val_interval=10)
custom_hooks = [dict(type='uniformer_mm.TrackedEMAHook', momentum=0.02, update_buffers=True)]
default_hooks = dict(logger=dict(interval=18), checkpoint=dict(interval=10))
randomness = dict(seed=0)
