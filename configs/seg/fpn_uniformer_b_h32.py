# SPDX-License-Identifier: Apache-2.0
"""Test only: Semantic FPN, UniFormer-B, ADE20K, hybrid attention, windows 32x32.

Row seg/fpn_b_h32: mIoU 47.7 (published) of the weights that
fpn_uniformer_b.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/fpn_uniformer_b_h32.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_b.py'

model = dict(backbone=dict(attention='hybrid', window_size=32))
