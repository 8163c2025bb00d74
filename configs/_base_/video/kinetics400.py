# SPDX-License-Identifier: Apache-2.0
"""Kinetics-400 videos: 16 of 64 frames, 224 pixels, two augmented copies of each clip.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory. Lists
and labels are mmaction2's: "class/name.mp4 label", labels in the alphabetical order of the classes.

Source: Sense-X/UniFormer @52a0415 video_classification (kinetics.py, decoder.py, transform.py).
DIFFERS: training is validated on one central view; the official log takes random crops there.
DIFFERS: an unreadable video stops the run; the official loader draws another one.
"""

data_root = '{{$UNIFORMER_DATA:data}}/kinetics400/'
num_classes = 400

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

frames = dict(clip_len=16, frame_interval=4)
size = 224

# Normalisation comes last, in the preprocessor: it commutes with bilinear resizing and flipping.
augment = [
    dict(type='uniformer_mm.ClipRandAugment', num_ops=4, magnitude=7, magnitude_std=0.5),
    dict(
        type='uniformer_mm.ClipRandomResizedCrop',
        size=size,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
    ),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='uniformer_mm.CubeErasing', prob=0.25, mean=pixel_mean, std=pixel_std),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='uniformer_mm.LinspaceSampleFrames', **frames),
    dict(type='DecordDecode'),
    dict(type='uniformer_mm.AugmentedCopies', num_copies=2, transforms=augment),
]
centre_crop = [
    dict(type='DecordDecode'),
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=1),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
val_pipeline = [
    dict(type='DecordInit'),
    dict(type='uniformer_mm.LinspaceSampleFrames', **frames, num_clips=1, test_mode=True),
    *centre_crop,
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='uniformer_mm.LinspaceSampleFrames', **frames, num_clips=4, test_mode=True),
    *centre_crop,
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
        type='VideoDataset',
        ann_file=data_root + 'kinetics400_train_list_videos.txt',
        data_prefix=dict(video=data_root + 'videos_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        ann_file=data_root + 'kinetics400_val_list_videos.txt',
        data_prefix=dict(video=data_root + 'videos_val'),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
# 2 videos x 4 views.
test_dataloader = dict(
    batch_size=2,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        ann_file=data_root + 'kinetics400_val_list_videos.txt',
        data_prefix=dict(video=data_root + 'videos_val'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 4)
