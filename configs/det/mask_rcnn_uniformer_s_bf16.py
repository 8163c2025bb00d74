# SPDX-License-Identifier: Apache-2.0
"""Option: mask_rcnn_uniformer_s.py in bfloat16, training (instead of fp16) and tests.

No loss scale, and no overflow where attention scores grow large (docs/options.md). On a GPU or the
CPU. Not run here::

    mim train mmdet configs/det/mask_rcnn_uniformer_s_bf16.py --launcher pytorch --gpus 8

Tests in float32: ``--cfg-options custom_hooks="[]"``.
"""

_base_ = './mask_rcnn_uniformer_s.py'

# RoIAlign has no bfloat16 kernel; scores and boxes of the RPN keep their digits.
float32_modules = (
    'rpn_head.rpn_cls',
    'rpn_head.rpn_reg',
    'roi_head.bbox_roi_extractor',
    'roi_head.mask_roi_extractor',
)
optim_wrapper = dict(type='uniformer_mm.BFloat16OptimWrapper', float32_modules=float32_modules)
custom_hooks = [
    dict(
        type='uniformer_mm.InferenceAutocastHook',
        dtype='bfloat16',
        float32_modules=float32_modules,
    ),
]
