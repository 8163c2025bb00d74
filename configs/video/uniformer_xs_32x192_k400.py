# SPDX-License-Identifier: Apache-2.0
"""UniFormer-XS on Kinetics-400, 32 frames of 192 pixels, from ImageNet-1K.

Row vid/k400_xs_32x192: top-1 78.6 with 1 clip x 1 crop on 19,787 validation videos (published),
16.1 M parameters, 33.79 GMACs per view.

Train (published with 8 GPUs x 16 videos, each of which enters twice), then test; the published
weights are ``uniformer://xs_k400_32x192``::

    mim train mmaction2 configs/video/uniformer_xs_32x192_k400.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_xs_32x192_k400.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/video/kinetics400_sparse.py',
    '../_base_/video/schedule_110e.py',
    '../_base_/video/runtime.py',
]

frames, size = 32, 192
model = dict(
    backbone=dict(
        arch='xs',
        drop_path_rate=0.1,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://xs_192_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=4e-4))

clip = dict(_base_.segments, clip_len=frames)
augment = [
    _base_.rand_augment,
    dict(_base_.random_crop, size=size),
    _base_.flip,
    _base_.erase,
    *_base_.pack,
]
test_pipeline = [
    *_base_.open_video,
    dict(clip, test_mode=True),
    *_base_.decode_video,
    dict(_base_.short_side, short_side=size),
    dict(_base_.middle, size=size),
    *_base_.pack,
]
train_pipeline = [
    *_base_.open_video,
    clip,
    *_base_.decode_video,
    dict(_base_.two_copies, transforms=augment),
]
train_dataloader = dict(batch_size=128 // 8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
auto_scale_lr = dict(base_batch_size=128)
