# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-B, ADE20K, 80k iterations, trained with hybrid attention, windows 14x14.

Row seg/fpn_b_h14: mIoU 47.0 (published), 54 M parameters. A training of its own, not a test of
fpn_uniformer_b.py.

Train (published with 8 GPUs x 4 images), then test; options as in fpn_uniformer_s.py::

    mim train mmseg configs/seg/fpn_uniformer_b_h14.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_b_h14.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_b.py'

model = dict(backbone=dict(attention='hybrid', window_size=14))
