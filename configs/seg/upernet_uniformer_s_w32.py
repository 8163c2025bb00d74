# SPDX-License-Identifier: Apache-2.0
"""Test only: UperNet, UniFormer-S, ADE20K, windows 32x32 in all of stage 3.

Row seg/upernet_s_w32: mIoU 46.6, multi-scale and flip 48.4 (published) of the weights that
upernet_uniformer_s.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/upernet_uniformer_s_w32.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_s_w32.py --checkpoint CHECKPOINT --tta
"""

_base_ = './upernet_uniformer_s.py'

model = dict(backbone=dict(attention='window', window_size=32))
