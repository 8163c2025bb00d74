# SPDX-License-Identifier: Apache-2.0
"""ADE20K, 150 classes: 512x512 crops of images rescaled to 0.5 - 2 times (2048, 512) pixels.

Label 0 ("other") is ignored and the classes 1..150 become 0..149 (reduce_zero_label).
Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory.

DIFFERS: mmengine's InfiniteSampler replaces the x50 repetition of the data set, which only spared
mmcv 1 from restarting its loaders; images are drawn without replacement pass by pass.
"""

data_root = '{{$UNIFORMER_DATA:data}}/ade/ADEChallengeData2016'
scale = (2048, 512)
crop_size = (512, 512)

# Training crops are padded to crop_size after normalisation; test images are not padded.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=crop_size,
    pad_val=0,
    seg_pad_val=255,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# The label map is loaded last: predictions are scored at the image's own size.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        reduce_zero_label=True,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        reduce_zero_label=True,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
