# SPDX-License-Identifier: Apache-2.0
"""Cascade Mask R-CNN, UniFormer-S, hybrid attention with 14x14 windows, COCO 3x, scales and crops.

Row det/cascade_s_h14_3x_ms: box AP 52.1, mask AP 45.2 on val2017 (published), 79 M parameters.

Train (published with 8 GPUs x 2 images), then test; options as in mask_rcnn_uniformer_s.py::

    mim train mmdet configs/det/cascade_mask_rcnn_uniformer_s_3x_ms.py --launcher pytorch --gpus 8
    mim test mmdet configs/det/cascade_mask_rcnn_uniformer_s_3x_ms.py --checkpoint CHECKPOINT

Own classes: the box heads are a list, see ../_base_/det/cascade_mask_rcnn.py or docs/own-data.md.
"""

_base_ = [
    '../_base_/det/cascade_mask_rcnn.py',
    '../_base_/det/coco_instance_ms_crop.py',
    '../_base_/det/schedule_3x.py',
    '../_base_/det/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        attention='hybrid',
        window_size=14,
        drop_path_rate=0.2,
        # The eight blocks of stage 3 are recomputed in the backward pass: slower, less memory.
        with_cp=(0, 0, 8, 0),
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
)
