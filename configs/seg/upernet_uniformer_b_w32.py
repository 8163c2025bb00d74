# SPDX-License-Identifier: Apache-2.0
"""Test only: UperNet, UniFormer-B, ADE20K, windows 32x32 in all of stage 3.

Row seg/upernet_b_w32: mIoU 49.1, multi-scale and flip 50.6 (published) of the weights that
upernet_uniformer_b.py trains with global attention; a training crop of 512 pixels is one window::

    mim test mmseg configs/seg/upernet_uniformer_b_w32.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_b_w32.py --checkpoint CHECKPOINT --tta
"""

_base_ = './upernet_uniformer_b.py'

model = dict(backbone=dict(attention='window', window_size=32))
