# SPDX-License-Identifier: Apache-2.0
"""Kinetics-400 for the light networks: one frame from each of as many segments as a clip has.

Leaf configs join the pieces at a number of frames and a size; tests take one view. Two logits are
trained with equal weight (``uniformer_mm.ClipPairHead``), see ``../cls/uniformer_light.py``.

Source: Sense-X/UniFormer @52a0415 video_classification (uniformer_light.py, exp_light), whose
decoder lacks the sampling that its configurations ask for; the formula is UniFormerV2's, which is
that of Something-Something on videos counted from 0.
"""

_base_ = ['./kinetics400.py', './transforms.py']

model = dict(
    backbone=dict(type='uniformer_mm.UniFormer3dClassifier', num_classes=_base_.num_classes),
    cls_head=dict(
        _delete_=True,
        type='uniformer_mm.ClipPairHead',
        num_classes=_base_.num_classes,
        label_smooth_eps=0.1,
        average_clips='score',
    ),
)

segments = dict(type='uniformer_mm.SegmentSampleFrames')
short_side = dict(type='uniformer_mm.ClipShortSideResize')
middle = dict(type='uniformer_mm.ClipUniformCrop', num_crops=1)
# "rand" without more: two operations of full strength.
full_rand_augment = dict(_base_.mild_rand_augment, magnitude=10, magnitude_std=0.0)
