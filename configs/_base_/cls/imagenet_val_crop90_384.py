# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1K's validation images at 384 pixels, which are 0.9 of the short side."""

_base_ = './imagenet_val.py'

size = 384
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=size * 10 // 9,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
