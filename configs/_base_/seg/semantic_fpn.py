# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN on UniFormer's four maps; the leaf config chooses arch, attention and drop path.

SyncBN becomes BN by itself where training is not distributed.
"""

fpn_channels = 256

model = dict(
    type='EncoderDecoder',
    backbone=dict(type='uniformer_mm.UniFormer2d'),
    neck=dict(type='FPN', in_channels=[64, 128, 320, 512], out_channels=fpn_channels, num_outs=4),
    decode_head=dict(
        type='FPNHead',
        in_channels=[fpn_channels] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
