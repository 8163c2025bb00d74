# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B, head_dim 64, from token labelling, on ImageNet-1K at 224 pixels (test only).

Row cls_tl/b_dim64_224, published on the validation set: top-1 84.8 (50.3 M parameters with both
heads, 8.27 GMACs).

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_b_tl_dim64_224_mean05.py``.

Test; the published weights are ``uniformer://base_dim64_tl_224``::

    mim test mmpretrain configs/cls/uniformer_b_tl_dim64_224.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_tl_224.py'

model = dict(backbone=dict(arch='base_tl_dim64'))
load_from = 'uniformer://base_dim64_tl_224'
