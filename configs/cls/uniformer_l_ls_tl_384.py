# SPDX-License-Identifier: Apache-2.0
"""UniFormer-L+LS, head_dim 64, from token labelling, on ImageNet-1K at 384 pixels (test only).

Row cls_tl/l_ls_384, published on the validation set: top-1 86.3 (100.1 M parameters with both
heads, 62.76 GMACs). The published FLOPs, 39.2G, contradict the released network. The released
run.sh names another network, test.sh this one.

Normalised by ImageNet's mean and deviation. Those of training are not stated and may have been
0.5: ``uniformer_l_ls_tl_384_mean05.py``.

Test; the published weights are ``uniformer://large_ls_tl_384``::

    mim test mmpretrain configs/cls/uniformer_l_ls_tl_384.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_tl_384.py'

model = dict(backbone=dict(arch='large_ls_tl'))
load_from = 'uniformer://large_ls_tl_384'
val_dataloader = dict(batch_size=32)
test_dataloader = val_dataloader
