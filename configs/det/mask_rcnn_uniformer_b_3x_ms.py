# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN, UniFormer-B, hybrid attention with 14x14 windows, COCO 3x with scales and crops.

Row det/mask_rcnn_b_h14_3x_ms: box AP 50.3, mask AP 44.8 on val2017 (published), 69 M parameters.

Train (published with 8 GPUs x 2 images), then test; options as in mask_rcnn_uniformer_s.py::

    mim train mmdet configs/det/mask_rcnn_uniformer_b_3x_ms.py --launcher pytorch --gpus 8
    mim test mmdet configs/det/mask_rcnn_uniformer_b_3x_ms.py --checkpoint CHECKPOINT
"""

_base_ = './mask_rcnn_uniformer_s_3x_ms.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        with_cp=(0, 0, 20, 0),
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
