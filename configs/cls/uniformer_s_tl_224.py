# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S, head_dim 32, from token labelling, on ImageNet-1K at 224 pixels (test only).

Row cls_tl/s_224, published on the validation set: top-1 83.4 (22.1 M parameters with both heads,
3.66 GMACs).

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_s_tl_224_mean05.py``.

Test; the published weights are ``uniformer://small_tl_224``::

    mim test mmpretrain configs/cls/uniformer_s_tl_224.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/cls/token_labelling.py',
    '../_base_/cls/imagenet_val_crop90_224.py',
    '../_base_/cls/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(arch='small_tl'),
)
load_from = 'uniformer://small_tl_224'
