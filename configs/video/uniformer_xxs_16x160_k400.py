# SPDX-License-Identifier: Apache-2.0
"""UniFormer-XXS on Kinetics-400, 16 frames of 160 pixels, from ImageNet-1K.

Row vid/k400_xxs_16x160: top-1 75.1 with 1 clip x 1 crop on 19,787 validation videos (published),
9.8 M parameters, 6.83 GMACs per view.

Train (published with 8 GPUs x 32 videos, each of which enters twice), then test; the published
weights are ``uniformer://xxs_k400_16x160``::

    mim train mmaction2 configs/video/uniformer_xxs_16x160_k400.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_xxs_16x160_k400.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_xxs_16x128_k400.py'

frames, size = 16, 160
model = dict(backbone=dict(init_cfg=dict(checkpoint='uniformer://xxs_160_in1k')))

clip = dict(_base_.segments, clip_len=frames)
augment = [
    _base_.mild_rand_augment,
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
train_dataloader = dict(batch_size=256 // 8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
