# SPDX-License-Identifier: Apache-2.0
"""Test only: Semantic FPN, UniFormer-B, ADE20K, windows 32x32 in all of stage 3.

Row seg/fpn_b_w32: mIoU 47.0 (published) of the weights that
fpn_uniformer_b.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/fpn_uniformer_b_w32.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_b.py'

model = dict(backbone=dict(attention='window', window_size=32))
