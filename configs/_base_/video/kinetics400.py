# SPDX-License-Identifier: Apache-2.0
"""Kinetics-400 videos.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory.
Lists and labels are mmaction2's: "class/name.mp4 label", labels in the alphabetical order of the
classes.
"""

_base_ = ['./recognizer.py', './loaders.py']

data_root = '{{$UNIFORMER_DATA:data}}/kinetics400/'
num_classes = 400

model = dict(
    data_preprocessor=dict(
        blending=dict(augments=[dict(mix, num_classes=num_classes) for mix in _base_.mixing])
    ),
    cls_head=dict(num_classes=num_classes),
)

train_set = dict(
    type='VideoDataset',
    ann_file=data_root + 'kinetics400_train_list_videos.txt',
    data_prefix=dict(video=data_root + 'videos_train'),
)
val_set = dict(
    type='VideoDataset',
    ann_file=data_root + 'kinetics400_val_list_videos.txt',
    data_prefix=dict(video=data_root + 'videos_val'),
    test_mode=True,
)
train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=val_set)
test_dataloader = dict(dataset=val_set)
