# SPDX-License-Identifier: Apache-2.0
"""UniFormer-XXS on ImageNet-1K at 224 pixels, 600 epochs from random weights.

Row cls/xxs_224, published on the validation set: top-1 80.6 (10.2 M parameters, 1.30 GMACs).
Augmented with timm's AutoAugment "v0"; each image enters an epoch once.

Train (published with 8 GPUs x 512 images), then test; the published weights are
``uniformer://xxs_224_in1k``::

    mim train mmpretrain configs/cls/uniformer_xxs_224_in1k.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_xxs_224_in1k.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_xxs_128_in1k.py'

size = 224
train_pipeline = [
    *_base_.load,
    dict(_base_.random_crop, scale=size),
    _base_.flip,
    _base_.auto_augment,
    _base_.random_erasing,
    *_base_.pack,
]
test_pipeline = [
    *_base_.load,
    dict(_base_.resize, scale=256 * size // 224),
    dict(_base_.centre_crop, crop_size=size),
    *_base_.pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
