# SPDX-License-Identifier: Apache-2.0
"""Clips of 16 out of 128 frames of a video, RGB; tested on 4 clips, cropped in the middle."""

_base_ = './transforms.py'

clip = dict(type='uniformer_mm.LinspaceSampleFrames', clip_len=16, frame_interval=8)
one_clip = dict(clip, test_mode=True)
four_clips = dict(clip, test_mode=True, num_clips=4)

train_pipeline = [*_base_.open_video, clip, *_base_.decode_video, _base_.two_copies]
val_pipeline = [*_base_.open_video, one_clip, *_base_.decode_video, *_base_.centre_crop]
test_pipeline = [*_base_.open_video, four_clips, *_base_.decode_views, *_base_.centre_crop]
