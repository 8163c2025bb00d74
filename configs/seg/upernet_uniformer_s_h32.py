# SPDX-License-Identifier: Apache-2.0
"""Test only: UperNet, UniFormer-S, ADE20K, hybrid attention, windows 32x32.

Row seg/upernet_s_h32: mIoU 47.0, multi-scale and flip 48.5 (published) of the weights that
upernet_uniformer_s.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/upernet_uniformer_s_h32.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_s_h32.py --checkpoint CHECKPOINT --tta
"""

_base_ = './upernet_uniformer_s.py'

model = dict(backbone=dict(attention='hybrid', window_size=32))
