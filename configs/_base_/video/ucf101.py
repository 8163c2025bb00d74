# SPDX-License-Identifier: Apache-2.0
"""UCF101 videos, split 1: clips of 16 out of 64 frames, milder augmentation, 5 x 3 views.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory.
Lists are mmaction2's: "class/name.avi label", labels in the alphabetical order of the classes.
"""

_base_ = ['./recognizer.py', './loaders.py', './transforms.py']

data_root = '{{$UNIFORMER_DATA:data}}/ucf101/'
num_classes = 101

model = dict(
    data_preprocessor=dict(
        blending=dict(augments=[dict(mix, num_classes=num_classes) for mix in _base_.mixing])
    ),
    cls_head=dict(num_classes=num_classes),
)

clip = dict(type='uniformer_mm.LinspaceSampleFrames', clip_len=16, frame_interval=4)
one_clip = dict(clip, test_mode=True)
five_clips = dict(clip, test_mode=True, num_clips=5)

train_pipeline = [*_base_.open_video, clip, *_base_.decode_video, _base_.two_mild_copies]
val_pipeline = [*_base_.open_video, one_clip, *_base_.decode_video, *_base_.centre_crop]
test_pipeline = [*_base_.open_video, five_clips, *_base_.decode_views, *_base_.three_crops]

train_set = dict(
    type='VideoDataset',
    ann_file=data_root + 'ucf101_train_split_1_videos.txt',
    data_prefix=dict(video=data_root + 'videos'),
    pipeline=train_pipeline,
)
val_set = dict(
    train_set,
    ann_file=data_root + 'ucf101_val_split_1_videos.txt',
    pipeline=val_pipeline,
    test_mode=True,
)
train_dataloader = dict(batch_size=128 // 8, dataset=train_set)
val_dataloader = dict(dataset=val_set)
test_dataloader = dict(batch_size=1, dataset=dict(val_set, pipeline=test_pipeline))
auto_scale_lr = dict(base_batch_size=128)
