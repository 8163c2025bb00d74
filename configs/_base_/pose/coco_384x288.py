# SPDX-License-Identifier: Apache-2.0
"""Persons cut out 288 pixels wide and 384 high; heatmaps of a quarter of that."""

_base_ = './coco_keypoints.py'

# Sizes are width x height. post_process 'default' of mmpose 0.16 is the codec's unbiased=False.
codec = dict(
    type='MSRAHeatmap',
    input_size=(288, 384),
    heatmap_size=(288 // 4, 384 // 4),
    sigma=3,
)
cut = dict(type='TopdownAffine', input_size=codec['input_size'])
target = dict(type='GenerateTarget', encoder=codec)
pack = dict(type='PackPoseInputs')

train_pipeline = [*_base_.load, *_base_.augmentation, cut, target, pack]
test_pipeline = [*_base_.load, cut, pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
