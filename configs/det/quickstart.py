# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN with a small UniFormer on the synthetic shapes: minutes on two CPU cores.

The same classes and code path as ``mask_rcnn_uniformer_s.py`` (hybrid attention, FPN, RPN, box and
mask heads, COCO metrics) at 192 pixels, from random weights::

    uniformer-mm make-data data
    mim train mmdet configs/det/quickstart.py

What differs from the real recipe: the arch, narrower heads, fewer proposals, image size, batch,
learning rate and length, and fp32 (fp16 needs a GPU).
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/det/mask_rcnn.py',
    '../_base_/det/coco_instance.py',
    '../_base_/det/schedule_1x.py',
    '../_base_/det/runtime.py',
]

classes = ('circle', 'square', 'triangle', 'star', 'ring')
channels = 64
epochs = 8
batch_size = 4
iterations_per_epoch = 240 // batch_size

model = dict(
    backbone=dict(
        arch=_base_.quickstart_arch,
        attention='hybrid',
        # Stage 3 sees 12x9 tokens: windows of 7 pad and cut as 14 does at full size.
        window_size=7,
    ),
    neck=dict(in_channels=list(_base_.quickstart_arch.dims), out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2), out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=len(classes)),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2), out_channels=channels),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=len(classes),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)

scale = (192, 192)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(metainfo=dict(classes=classes), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(metainfo=dict(classes=classes), pipeline=test_pipeline),
)
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=0,
        end=epochs * iterations_per_epoch,
    ),
]
train_cfg = dict(max_epochs=epochs, val_interval=2)
auto_scale_lr = dict(base_batch_size=batch_size)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=2))
randomness = dict(seed=0)
