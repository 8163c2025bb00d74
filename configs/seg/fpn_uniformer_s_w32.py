# SPDX-License-Identifier: Apache-2.0
"""Test only: Semantic FPN, UniFormer-S, ADE20K, windows 32x32 in all of stage 3.

Row seg/fpn_s_w32: mIoU 45.6 (published) of the weights that
fpn_uniformer_s.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/fpn_uniformer_s_w32.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(backbone=dict(attention='window', window_size=32))
