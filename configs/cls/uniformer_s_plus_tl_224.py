# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S+, head_dim 32, from token labelling, on ImageNet-1K at 224 pixels (test only).

Row cls_tl/s_plus_224, published on the validation set: top-1 83.9 (24.5 M parameters with both
heads, 4.23 GMACs).

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_s_plus_tl_224_mean05.py``.

Test; the published weights are ``uniformer://small_plus_tl_224``::

    mim test mmpretrain configs/cls/uniformer_s_plus_tl_224.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_tl_224.py'

model = dict(backbone=dict(arch='small_plus_tl'))
load_from = 'uniformer://small_plus_tl_224'
