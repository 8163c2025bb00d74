# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-S, ADE20K, 80k iterations, trained with hybrid attention, windows 14x14.

Row seg/fpn_s_h14: mIoU 46.3 (published, weights never released), 25 M parameters. A training of its
own, not a test of fpn_uniformer_s.py.

The published 172 GFLOPs are those of windows in every block of stage 3; with the recipe's hybrid
attention it is about 192.

Train (published with 8 GPUs x 4 images), then test; options as in fpn_uniformer_s.py::

    mim train mmseg configs/seg/fpn_uniformer_s_h14.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_s_h14.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(backbone=dict(attention='hybrid', window_size=14))
