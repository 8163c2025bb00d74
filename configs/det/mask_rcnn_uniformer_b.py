# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN, UniFormer-B, hybrid attention with 14x14 windows, COCO 1x (12 epochs).

Row det/mask_rcnn_b_h14_1x: box AP 47.4, mask AP 43.1 on val2017 (published), 69 M parameters.

Train (published with 8 GPUs x 2 images), then test; options as in mask_rcnn_uniformer_s.py::

    mim train mmdet configs/det/mask_rcnn_uniformer_b.py --launcher pytorch --gpus 8
    mim test mmdet configs/det/mask_rcnn_uniformer_b.py --checkpoint CHECKPOINT
"""

_base_ = './mask_rcnn_uniformer_s.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        # The published 1x run kept all activations. Short of memory: with_cp=(0, 0, 20, 0).
        with_cp=False,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
