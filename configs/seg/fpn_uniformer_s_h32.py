# SPDX-License-Identifier: Apache-2.0
"""Test only: Semantic FPN, UniFormer-S, ADE20K, hybrid attention, windows 32x32.

Row seg/fpn_s_h32: mIoU 46.2 (published) of the weights that
fpn_uniformer_s.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/fpn_uniformer_s_h32.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(backbone=dict(attention='hybrid', window_size=32))
