# SPDX-License-Identifier: Apache-2.0
"""Cascade Mask R-CNN: mask_rcnn.py with three box heads in a row and a mask head for each.

What differs from Mask R-CNN: each box head has four convolutions with SyncBN and one linear layer,
and learns GIoU of the decoded boxes; the RPN learns with smooth L1 from anchors inside the image,
and hands on 2000 proposals in training (1000 in testing).

SyncBN becomes BN by itself where training is not distributed.

The box heads are a list, which a dict in a leaf cannot change (TypeError). A leaf with n classes
builds it anew (docs/own-data.md)::

    model = dict(
        roi_head=dict(
            bbox_head=[dict(head, num_classes=n) for head in _base_.box_heads],
            mask_head=dict(num_classes=n),
        ),
    )

Source: Sense-X/UniFormer @52a0415 object_detection (configs/_base_/models/
cascade_mask_rcnn_uniformer_fpn.py, exp/cascade_*/config.py).
"""

_base_ = './mask_rcnn.py'

# From one stage to the next: boxes fit better, so corrections are smaller and matches stricter.
box_stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
match_ious = (0.5, 0.6, 0.7)

box_heads = [
    dict(
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        in_channels=_base_.fpn_channels,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=_base_.num_classes,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds
        ),
        reg_class_agnostic=False,
        reg_decoded_bbox=True,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
    )
    for stds in box_stds
]
rcnn_training = [
    dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type='RandomSampler',
            num=512,
            pos_fraction=0.25,
            neg_pos_ub=-1,
            add_gt_as_proposals=True,
        ),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    )
    for iou in match_ious
]

model = dict(
    type='CascadeRCNN',
    rpn_head=dict(
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
    ),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=len(box_stds),
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=box_heads,
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=rcnn_training,
    ),
)
