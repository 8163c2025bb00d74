# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B, head_dim 64, from token labelling, at 224 pixels, mean 0.5 (test only).

Row cls_tl/b_dim64_224 as ``uniformer_b_tl_dim64_224.py`` has it, with mean and deviation 0.5 of
the range 0..1.

Test; the published weights are ``uniformer://base_dim64_tl_224``::

    mim test mmpretrain configs/cls/uniformer_b_tl_dim64_224_mean05.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_b_tl_dim64_224.py'

model = dict(data_preprocessor=_base_.half_range)
