# SPDX-License-Identifier: Apache-2.0
"""Something-Something V2 frames: 16 segments, 224 pixels, BGR, never flipped, two copies.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory. Frames
are ``rawframes/ID/img_00001.jpg`` ..., extracted at 30 frames per second; lists are mmaction2's:
"ID frames label".

Source: Sense-X/UniFormer @52a0415 video_classification (sth.py, transform.py).
DIFFERS: training is validated on one central view; the official log takes random crops there.
"""

data_root = '{{$UNIFORMER_DATA:data}}/sthv2/'
num_classes = 174

# 0.45 and 0.225 of the range 0..1, for every channel.
pixel_mean = 0.45 * 255
pixel_std = 0.225 * 255
data_preprocessor = dict(
    type='ActionDataPreprocessor',
    mean=[pixel_mean] * 3,
    std=[pixel_std] * 3,
    format_shape='NCTHW',
    # Each batch of a GPU is mixed, half of them by CutMix.
    blending=dict(
        type='RandomBatchAugment',
        augments=[
            dict(type='uniformer_mm.MirrorMixup', alpha=0.8, num_classes=num_classes),
            dict(type='uniformer_mm.MirrorCutmix', alpha=1.0, num_classes=num_classes),
        ],
    ),
)

clip_len = 16
size = 224

# The network sees BGR: the official loader reads with OpenCV and never converts.
decode = [dict(type='RawFrameDecode'), dict(type='uniformer_mm.RGBToBGR')]
# Left and right are different actions: no flip. Normalisation comes last, in the preprocessor.
augment = [
    dict(type='uniformer_mm.ClipRandAugment', num_ops=4, magnitude=7, magnitude_std=0.5),
    dict(
        type='uniformer_mm.ClipRandomResizedCrop',
        size=size,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
    ),
    dict(type='uniformer_mm.CubeErasing', prob=0.25, mean=pixel_mean, std=pixel_std),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_pipeline = [
    dict(type='uniformer_mm.SegmentSampleFrames', clip_len=clip_len),
    *decode,
    dict(type='uniformer_mm.AugmentedCopies', num_copies=2, transforms=augment),
]
val_pipeline = [
    dict(type='uniformer_mm.SegmentSampleFrames', clip_len=clip_len, num_clips=1, test_mode=True),
    *decode,
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=1),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [
    dict(type='uniformer_mm.SegmentSampleFrames', clip_len=clip_len, num_clips=1, test_mode=True),
    *decode,
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=3),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]

# 8 GPUs x 4 videos x 2 copies.
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='repeat_pseudo_collate'),
    dataset=dict(
        type='RawframeDataset',
        ann_file=data_root + 'sthv2_train_list_rawframes.txt',
        data_prefix=dict(img=data_root + 'rawframes'),
        filename_tmpl='img_{:05}.jpg',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='RawframeDataset',
        ann_file=data_root + 'sthv2_val_list_rawframes.txt',
        data_prefix=dict(img=data_root + 'rawframes'),
        filename_tmpl='img_{:05}.jpg',
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
# 2 videos x 3 views.
test_dataloader = dict(
    batch_size=2,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='RawframeDataset',
        ann_file=data_root + 'sthv2_val_list_rawframes.txt',
        data_prefix=dict(img=data_root + 'rawframes'),
        filename_tmpl='img_{:05}.jpg',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 4)
