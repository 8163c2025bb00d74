# SPDX-License-Identifier: Apache-2.0
"""A small UniFormer on synthetic clips in the layout of Kinetics-400, on two CPU cores.

The model family, transforms, doubled clips and evaluation of ``uniformer_s_16x4_k400.py`` at a
fraction of its size, from random weights. The classes are eight motions; no single frame tells
them apart, and a mirrored clip keeps its class.

    uniformer-mm make-data data
    mim train mmaction2 configs/video/quickstart_kinetics.py

What differs from the real recipe: the arch, image size, frame interval, batch, learning rate and
length; milder crops and no RandAugment, erasing, mixing and label smoothing, which need more epochs
to pay; one view when testing; fp32 (fp16 needs a GPU).
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/video/kinetics400.py',
    '../_base_/video/transforms.py',
    '../_base_/video/schedule.py',
    '../_base_/video/runtime.py',
]

num_classes = 8
frames = dict(clip_len=8, frame_interval=4)
size = 64

model = dict(
    backbone=dict(arch=_base_.quickstart_arch),
    cls_head=dict(
        in_channels=_base_.quickstart_arch['dims'][-1],
        num_classes=num_classes,
        label_smooth_eps=0.0,
    ),
    data_preprocessor=dict(blending=None),
)

augment = [
    dict(type='uniformer_mm.ClipRandomResizedCrop', size=size, area_range=(0.7, 1.0)),
    _base_.flip,
    *_base_.pack,
]
train_pipeline = [
    *_base_.open_video,
    dict(type='uniformer_mm.LinspaceSampleFrames', **frames),
    *_base_.decode_video,
    dict(type='uniformer_mm.AugmentedCopies', num_copies=1, transforms=augment),
]
test_pipeline = [
    *_base_.open_video,
    dict(type='uniformer_mm.LinspaceSampleFrames', **frames, num_clips=1, test_mode=True),
    *_base_.decode_video,
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=1),
    *_base_.pack,
]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(total=24, warmup=3, cosine_begin=3)
train_cfg = dict(max_epochs=24)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
