# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S, head_dim 32, from token labelling, on ImageNet-1K at 384 pixels (test only).

Row cls_tl/s_384, published on the validation set: top-1 84.6 (22.1 M parameters with both heads,
11.91 GMACs).

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_s_tl_384_mean05.py``.

Test; the published weights are ``uniformer://small_tl_384``::

    mim test mmpretrain configs/cls/uniformer_s_tl_384.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/cls/token_labelling.py',
    '../_base_/cls/imagenet_val_crop90_384.py',
    '../_base_/cls/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(arch='small_tl'),
)
load_from = 'uniformer://small_tl_384'
