# SPDX-License-Identifier: Apache-2.0
"""Scale: Mask R-CNN, UniFormer-L (99 M parameters in the backbone), COCO 1x, FSDP.

No published result and no official recipe: the B recipe with the stronger drop path that L has on
ImageNet. L exists only with residual scales and token labelling, and its authors saw residual
scales keep video models from converging (docs/options.md). Not run here::

    mim train mmdet configs/det/mask_rcnn_uniformer_l_fsdp.py --launcher pytorch --gpus 8
"""

_base_ = './mask_rcnn_uniformer_b_fsdp.py'

model = dict(
    backbone=dict(
        arch='large_ls_tl',
        drop_path_rate=0.4,
        with_cp=(0, 0, 24, 0),
        init_cfg=dict(checkpoint='uniformer://large_ls_tl_224'),
    ),
    neck=dict(in_channels=[128, 192, 448, 640]),
)
