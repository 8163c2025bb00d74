# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S+, head_dim 32, from token labelling, at 384 pixels, mean 0.5 (test only).

Row cls_tl/s_plus_384 as ``uniformer_s_plus_tl_384.py`` has it, with mean and deviation 0.5 of the
range 0..1.

Test; the published weights are ``uniformer://small_plus_tl_384``::

    mim test mmpretrain configs/cls/uniformer_s_plus_tl_384_mean05.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_plus_tl_384.py'

model = dict(data_preprocessor=_base_.half_range)
