# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1K at 224 pixels with DeiT's augmentation, each image in three copies.

DIFFERS: mmpretrain's RandAugment works on OpenCV images, timm's on PIL: same operations, ranges and
probabilities, other rounding and bicubic kernels.
DIFFERS: RandomErasing fills with the noise before normalisation, so it is rounded down and clipped
to 0..255; a box larger than the image is cut where timm draws another.
DIFFERS: Mixup and CutMix pair images by a random permutation, timm with the reversed batch.
"""

_base_ = './imagenet_val.py'

# Images stay BGR until the preprocessor turns them.
bgr_mean = _base_.data_preprocessor['mean'][::-1]
bgr_std = _base_.data_preprocessor['std'][::-1]

# rand-m9-mstd0.5-inc1: two operations, each done with probability 0.5, magnitude N(9, 0.5).
rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[round(x) for x in bgr_mean], interpolation='bicubic'),
)
random_erasing = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=bgr_mean,
    fill_std=bgr_std,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    rand_augment,
    random_erasing,
    dict(type='PackInputs'),
]
# drop_last cuts the sampler's epoch to the official 1251 batches per GPU.
train_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='RepeatAugSampler', num_repeats=3, shuffle=True),
    dataset=dict(
        type='ImageNet', data_root=_base_.data_root, split='train', pipeline=train_pipeline
    ),
)
