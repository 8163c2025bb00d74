# SPDX-License-Identifier: Apache-2.0
"""UperNet, UniFormer-S, ADE20K, 160k iterations, trained with hybrid attention, windows 14x14.

Row seg/upernet_s_h14: mIoU 46.9, multi-scale and flip 48.0 (published, weights never released), 52
M parameters. A training of its own, not a test of upernet_uniformer_s.py.

Train (published with 8 GPUs x 2 images), then test; options as in upernet_uniformer_s.py::

    mim train mmseg configs/seg/upernet_uniformer_s_h14.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/upernet_uniformer_s_h14.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_s_h14.py --checkpoint CHECKPOINT --tta
"""

_base_ = './upernet_uniformer_s.py'

model = dict(backbone=dict(attention='hybrid', window_size=14))
