# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1K for the light networks, each image once; leaf configs join the pieces at a size.

See ``imagenet.py`` for what differs from timm's operations.
"""

_base_ = './imagenet.py'

load = [dict(type='LoadImageFromFile')]
pack = [dict(type='PackInputs')]
random_crop = dict(
    type='RandomResizedCrop',
    crop_ratio_range=(0.08, 1.0),
    aspect_ratio_range=(3 / 4, 4 / 3),
    backend='pillow',
    interpolation='bicubic',
)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
resize = dict(type='ResizeEdge', edge='short', backend='pillow', interpolation='bicubic')
centre_crop = dict(type='CenterCrop')

# timm's "v0": one of 25 pairs of operations for each image, each operation done with its
# probability. mmpretrain's preset 'imagenet' is another list. Strengths are tenths of the largest.
warp = dict(pad_val=[round(x) for x in _base_.bgr_mean], interpolation='bicubic')
shear_x = dict(type='Shear', direction='horizontal', **warp)
shear_y = dict(type='Shear', direction='vertical', **warp)
translate_y = dict(type='Translate', direction='vertical', **warp)
rotate = dict(type='Rotate', **warp)
color = dict(type='ColorTransform', random_negative_prob=0.0)
equalize = dict(type='Equalize')
contrast = dict(type='AutoContrast')
invert = dict(type='Invert')
posterize = dict(type='Posterize')
solarize = dict(type='Solarize')
solarize_add = dict(type='SolarizeAdd')
auto_augment = dict(
    type='AutoAugment',
    policies=[
        [dict(equalize, prob=0.8), dict(shear_y, magnitude=0.4 * 0.3, prob=0.8)],
        [dict(color, magnitude=0.9 * 1.8 - 0.9, prob=0.4), dict(equalize, prob=0.6)],
        [dict(color, magnitude=0.1 * 1.8 - 0.9, prob=0.4), dict(rotate, angle=0.8 * 30, prob=0.6)],
        [dict(solarize, thr=int(0.3 * 256), prob=0.8), dict(equalize, prob=0.4)],
        [
            dict(solarize, thr=int(0.2 * 256), prob=0.4),
            dict(solarize, thr=int(0.2 * 256), prob=0.6),
        ],
        [dict(color, magnitude=0.0 * 1.8 - 0.9, prob=0.2), dict(equalize, prob=0.8)],
        [dict(equalize, prob=0.4), dict(solarize_add, magnitude=int(0.3 * 110), prob=0.8)],
        [dict(shear_x, magnitude=0.9 * 0.3, prob=0.2), dict(rotate, angle=0.8 * 30, prob=0.6)],
        [dict(color, magnitude=0.1 * 1.8 - 0.9, prob=0.6), dict(equalize, prob=1.0)],
        [dict(invert, prob=0.4), dict(rotate, angle=0.0 * 30, prob=0.6)],
        [dict(equalize, prob=1.0), dict(shear_y, magnitude=0.3 * 0.3, prob=0.6)],
        [dict(color, magnitude=0.7 * 1.8 - 0.9, prob=0.4), dict(equalize, prob=0.6)],
        [dict(posterize, bits=int(0.6 * 4), prob=0.4), dict(contrast, prob=0.4)],
        [
            dict(solarize, thr=int(0.8 * 256), prob=0.6),
            dict(color, magnitude=0.9 * 1.8 - 0.9, prob=0.6),
        ],
        [dict(solarize, thr=int(0.4 * 256), prob=0.2), dict(rotate, angle=0.9 * 30, prob=0.8)],
        [dict(rotate, angle=0.7 * 30, prob=1.0), dict(translate_y, magnitude=0.9 * 0.45, prob=0.8)],
        [
            dict(shear_x, magnitude=0.0 * 0.3, prob=0.0),
            dict(solarize, thr=int(0.4 * 256), prob=0.8),
        ],
        [
            dict(shear_y, magnitude=0.0 * 0.3, prob=0.8),
            dict(color, magnitude=0.4 * 1.8 - 0.9, prob=0.6),
        ],
        [dict(color, magnitude=0.0 * 1.8 - 0.9, prob=1.0), dict(rotate, angle=0.2 * 30, prob=0.6)],
        [dict(equalize, prob=0.8), dict(equalize, prob=0.0)],
        [dict(equalize, prob=1.0), dict(contrast, prob=0.6)],
        [
            dict(shear_y, magnitude=0.7 * 0.3, prob=0.4),
            dict(solarize_add, magnitude=int(0.7 * 110), prob=0.6),
        ],
        # No bits are kept: the image becomes black.
        [
            dict(posterize, bits=int(0.2 * 4), prob=0.8),
            dict(solarize, thr=int(1.0 * 256), prob=0.6),
        ],
        [dict(solarize, thr=int(0.8 * 256), prob=0.6), dict(equalize, prob=0.6)],
        [dict(color, magnitude=0.6 * 1.8 - 0.9, prob=0.8), dict(rotate, angle=0.5 * 30, prob=0.4)],
    ],
)

train_dataloader = dict(
    batch_size=512,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(batch_size=512 * 3 // 2)
test_dataloader = val_dataloader
