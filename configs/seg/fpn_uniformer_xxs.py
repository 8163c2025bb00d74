# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-XXS (hourglass blocks), ADE20K, 80k iterations.

Row seg/fpn_xxs: mIoU 42.3 (published, single scale), 13.5 M parameters.

Train (published with 8 GPUs x 4 images), then test::

    mim train mmseg configs/seg/fpn_uniformer_xxs.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_xxs.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='uniformer_mm.UniFormer2d',
        arch='xxs',
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://xxs_224_in1k'),
    ),
    neck=dict(in_channels=[56, 112, 224, 448]),
)
