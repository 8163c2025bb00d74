# SPDX-License-Identifier: Apache-2.0
"""COCO keypoints, top-down: one person per sample, cut out along its box.

Training uses the annotated boxes, evaluation the detector's boxes that are the usual input on
val2017 (person AP 56.4). Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the
working directory. ``coco_HxW.py`` add the input size and with it the pipelines.

DIFFERS: mmpose 1 clips an annotated box 1 pixel later at its right and lower side than mmpose 0.16.
DIFFERS: while it reads the annotations, the official loader moves the centres of 30 % of the
training boxes by up to 0.2 box sides, once for the whole training; we use the boxes as annotated.
"""

# mmpose's inferencers and demos read these two names.
dataset_type = 'CocoDataset'
data_mode = 'topdown'

data_root = '{{$UNIFORMER_DATA:data}}/coco'
val_ann_file = 'annotations/person_keypoints_val2017.json'

data_preprocessor = dict(
    type='PoseDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
)

# A person's box with a quarter around it.
load = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale', padding=1.25)]
# Half body: persons with more than 8 visible joints; the official code prefers the upper half
# where a standard normal draw is below 0.5, which has this probability.
# Source: pose_estimation/mmpose/datasets/pipelines/top_down_transform.py
augmentation = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomHalfBody',
        min_total_keypoints=8 + 1,
        min_upper_keypoints=2,
        min_lower_keypoints=3,
        padding=1.5,
        prob=0.3,
        upper_prioritized_prob=0.6914624612740131,
    ),
    dict(
        type='uniformer_mm.ClippedBBoxTransform',
        scale_std=0.5,
        rotate_std=40.0,
        rotate_prob=0.6,
    ),
]

train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_mode=data_mode,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/'),
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_mode=data_mode,
        ann_file=val_ann_file,
        bbox_file=data_root
        + '/person_detection_results/COCO_val2017_detections_AP_H_56_person.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

# Score = box score x mean score of the joints above 0.2; hard OKS suppression at 0.9.
val_evaluator = dict(
    type='CocoMetric',
    ann_file=f'{data_root}/{val_ann_file}',
    score_mode='bbox_keypoint',
    keypoint_score_thr=0.2,
    nms_mode='oks_nms',
    nms_thr=0.9,
)
test_evaluator = val_evaluator
