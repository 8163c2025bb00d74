# SPDX-License-Identifier: Apache-2.0
"""Clips of one frame from each of 32 segments of a video, BGR, no flips; tested on 3 crops."""

_base_ = './transforms.py'

clip = dict(type='uniformer_mm.SegmentSampleFrames', clip_len=32)
one_clip = dict(clip, test_mode=True)

train_pipeline = [clip, *_base_.decode_frames, _base_.two_unflipped_copies]
val_pipeline = [one_clip, *_base_.decode_frames, *_base_.centre_crop]
test_pipeline = [one_clip, *_base_.decode_frames, *_base_.three_crops]
