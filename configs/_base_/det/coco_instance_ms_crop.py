# SPDX-License-Identifier: Apache-2.0
"""COCO 2017 as in coco_instance.py, training on many scales and crops (after DETR, Sparse R-CNN).

Half of the images get a short side of 480 to 800 pixels. The others are first brought to a short
side of 400, 500 or 600 and cropped to 384 to 600 pixels a side (an image without objects stays in
the batch). The long side never exceeds 1333. Testing is unchanged.

Source: Sense-X/UniFormer @52a0415 object_detection/exp/*_3x_ms_*/config.py. RandomChoice is mmdet
2.11's AutoAugment, RandomChoiceResize its Resize with multiscale_mode='value'.
"""

_base_ = './coco_instance.py'

longest = 1333
short_sides = range(480, 800 + 1, 32)
resize = dict(
    type='RandomChoiceResize', scales=[(side, longest) for side in short_sides], keep_ratio=True
)
enlarge_a_crop = [
    dict(
        type='RandomChoiceResize',
        scales=[(side, longest) for side in (400, 500, 600)],
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(384, 600),
        allow_negative_crop=True,
    ),
    resize,
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[resize], enlarge_a_crop]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
