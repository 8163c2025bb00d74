# SPDX-License-Identifier: Apache-2.0
"""Scale: mask_rcnn_uniformer_b.py under DeepSpeed (ZeRO 2), in bfloat16 instead of fp16.

Not run on GPUs here::

    mim train mmdet configs/det/mask_rcnn_uniformer_b_deepspeed.py --launcher pytorch --gpus 8
"""

_base_ = ['./mask_rcnn_uniformer_b.py', '../_base_/deepspeed.py']

model = dict(backbone=dict(with_cp=(0, 0, 20, 0)))
strategy = dict(train_micro_batch_size_per_gpu=2)
# ZeRO updates a few flat parameters, which gain nothing from a fused optimizer.
optim_wrapper = dict(type='DeepSpeedOptimWrapper', optimizer=dict(type='AdamW'))
# RoIAlign has no bfloat16 kernel; scores and boxes of the RPN keep their digits.
custom_hooks = [
    dict(
        type='uniformer_mm.Float32ModulesHook',
        modules=(
            'rpn_head.rpn_cls',
            'rpn_head.rpn_reg',
            'roi_head.bbox_roi_extractor',
            'roi_head.mask_roi_extractor',
        ),
    ),
]
