# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps, UniFormer-S, COCO keypoints, 256x192.

Row pose/s_256x192, published on val2017: AP 74.0, AP50 90.3, AP75 82.2, AP-M 66.8, AP-L 76.7,
AR 79.5 (25.2 M parameters).

Train (one process; published with 8 GPUs x 128 persons), then test::

    mim train mmpose configs/pose/td_hm_uniformer_s_256x192.py
    mim train mmpose configs/pose/td_hm_uniformer_s_256x192.py --launcher pytorch --gpus 8
    mim test mmpose configs/pose/td_hm_uniformer_s_256x192.py --checkpoint CHECKPOINT

Without a GPU add ``--cfg-options optim_wrapper.type=OptimWrapper`` (fp32: mmengine's fp16 needs a
GPU). From random weights: ``--cfg-options model.backbone.init_cfg=None``. With
another batch size: ``--auto-scale-lr``. For lack of a detector's boxes, annotated ones:
``val_dataloader.dataset.bbox_file=None``.

BatchNorm in the backbone trains and nothing is frozen, as published.
"""

_base_ = [
    '../_base_/pose/simple_baseline.py',
    '../_base_/pose/coco_keypoints.py',
    '../_base_/pose/schedule_210e.py',
    '../_base_/pose/runtime.py',
]

# Sizes are width x height. post_process 'default' of mmpose 0.16 is the codec's unbiased=False.
codec = dict(type='MSRAHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
    head=dict(decoder=codec),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    *_base_.augmentation,
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
