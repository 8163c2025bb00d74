# SPDX-License-Identifier: Apache-2.0
"""Scale: Mask R-CNN, UniFormer-L (99 M parameters in the backbone), COCO 1x, DeepSpeed (ZeRO 2).

What mask_rcnn_uniformer_l_fsdp.py says of L holds here too. Not run here::

    mim train mmdet configs/det/mask_rcnn_uniformer_l_deepspeed.py --launcher pytorch --gpus 8
"""

_base_ = './mask_rcnn_uniformer_b_deepspeed.py'

model = dict(
    backbone=dict(
        arch='large_ls_tl',
        drop_path_rate=0.4,
        with_cp=(0, 0, 24, 0),
        init_cfg=dict(checkpoint='uniformer://large_ls_tl_224'),
    ),
    neck=dict(in_channels=[128, 192, 448, 640]),
)
