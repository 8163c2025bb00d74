# SPDX-License-Identifier: Apache-2.0
"""A small UniFormer on synthetic frames in the layout of Something-Something V2, on two CPU cores.

The model family, transforms, doubled clips and evaluation of ``uniformer_s_16_ssv2.py`` at a
fraction of its size, from random weights. The classes are two pairs of mirrored motions: with flips
left on, none of them could be told.

    uniformer-mm make-data data
    mim train mmaction2 configs/video/quickstart_ssv2.py

What differs from the real recipe: the arch, frames, image size, batch, learning rate and length;
milder crops and no RandAugment, erasing, mixing and label smoothing, which need more epochs to pay;
one view when testing; fp32 (fp16 needs a GPU).
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/video/sthv2.py',
    '../_base_/video/transforms.py',
    '../_base_/video/schedule.py',
    '../_base_/video/runtime.py',
]

num_classes = 4
clip_len = 8
size = 64

model = dict(
    backbone=dict(arch=_base_.quickstart_arch),
    cls_head=dict(
        in_channels=_base_.quickstart_arch['dims'][-1],
        num_classes=num_classes,
        label_smooth_eps=0.0,
        topk=(1,),
    ),
    data_preprocessor=dict(blending=None),
)

augment = [
    dict(type='uniformer_mm.ClipRandomResizedCrop', size=size, area_range=(0.7, 1.0)),
    *_base_.pack,
]
train_pipeline = [
    dict(type='uniformer_mm.SegmentSampleFrames', clip_len=clip_len),
    *_base_.decode_frames,
    dict(type='uniformer_mm.AugmentedCopies', num_copies=2, transforms=augment),
]
test_pipeline = [
    dict(type='uniformer_mm.SegmentSampleFrames', clip_len=clip_len, num_clips=1, test_mode=True),
    *_base_.decode_frames,
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=1),
    *_base_.pack,
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric_options=dict(top_k_accuracy=dict(topk=(1,))))
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = dict(total=40, warmup=4, cosine_begin=4)
train_cfg = dict(max_epochs=40)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
