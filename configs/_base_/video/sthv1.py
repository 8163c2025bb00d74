# SPDX-License-Identifier: Apache-2.0
"""Something-Something V1 frames.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory.
Frames are ``rawframes/ID/00001.jpg`` ... as published; lists are
mmaction2's: "ID frames label".
"""

_base_ = ['./recognizer.py', './loaders.py']

data_root = '{{$UNIFORMER_DATA:data}}/sthv1/'
num_classes = 174

model = dict(
    data_preprocessor=dict(
        blending=dict(augments=[dict(mix, num_classes=num_classes) for mix in _base_.mixing])
    ),
    cls_head=dict(num_classes=num_classes),
)

train_set = dict(
    type='RawframeDataset',
    ann_file=data_root + 'sthv1_train_list_rawframes.txt',
    data_prefix=dict(img=data_root + 'rawframes'),
    filename_tmpl='{:05}.jpg',
)
val_set = dict(train_set, ann_file=data_root + 'sthv1_val_list_rawframes.txt', test_mode=True)
train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=val_set)
test_dataloader = dict(dataset=val_set)
