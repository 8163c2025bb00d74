# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-XS (hourglass blocks), ADE20K, 80k iterations.

Row seg/fpn_xs: mIoU 44.4 (published, single scale), 19.7 M parameters.

Train (published with 8 GPUs x 4 images), then test::

    mim train mmseg configs/seg/fpn_uniformer_xs.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_xs.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='uniformer_mm.UniFormer2d',
        arch='xs',
        drop_path_rate=0.1,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://xs_224_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
