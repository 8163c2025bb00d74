# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S+, head_dim 32, from token labelling, at 224 pixels, mean 0.5 (test only).

Row cls_tl/s_plus_224 as ``uniformer_s_plus_tl_224.py`` has it, with mean and deviation 0.5 of the
range 0..1.

Test; the published weights are ``uniformer://small_plus_tl_224``::

    mim test mmpretrain configs/cls/uniformer_s_plus_tl_224_mean05.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_plus_tl_224.py'

model = dict(data_preprocessor=_base_.half_range)
