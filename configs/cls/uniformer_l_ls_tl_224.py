# SPDX-License-Identifier: Apache-2.0
"""UniFormer-L+LS, head_dim 64, from token labelling, on ImageNet-1K at 224 pixels (test only).

Row cls_tl/l_ls_224, published on the validation set: top-1 85.6 (100.1 M parameters with both
heads, 19.71 GMACs). The published FLOPs, 12.6G, contradict the released network.

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_l_ls_tl_224_mean05.py``.

Test; the published weights are ``uniformer://large_ls_tl_224``::

    mim test mmpretrain configs/cls/uniformer_l_ls_tl_224.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_tl_224.py'

model = dict(backbone=dict(arch='large_ls_tl'))
load_from = 'uniformer://large_ls_tl_224'
