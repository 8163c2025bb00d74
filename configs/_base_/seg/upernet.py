# SPDX-License-Identifier: Apache-2.0
"""UperNet on UniFormer's four maps, auxiliary FCN on the third; the leaf config chooses arch,
attention and drop path.

SyncBN becomes BN by itself where training is not distributed; the pyramid's 1x1 pool then needs at
least 2 images in a batch.
"""

dims = [64, 128, 320, 512]
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    backbone=dict(type='uniformer_mm.UniFormer2d'),
    decode_head=dict(
        type='UPerHead',
        in_channels=dims,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=dims[2],
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
