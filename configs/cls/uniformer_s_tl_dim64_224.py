# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S, head_dim 64, from token labelling, on ImageNet-1K at 224 pixels (test only).

Row cls_tl/s_dim64_224, published on the validation set: top-1 83.4 (22.1 M parameters with both
heads, 3.66 GMACs).

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_s_tl_dim64_224_mean05.py``.

Test; the published weights are ``uniformer://small_dim64_tl_224``::

    mim test mmpretrain configs/cls/uniformer_s_tl_dim64_224.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_tl_224.py'

model = dict(backbone=dict(arch='small_tl_dim64'))
load_from = 'uniformer://small_dim64_tl_224'
