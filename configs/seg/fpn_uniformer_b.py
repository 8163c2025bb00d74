# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN, UniFormer-B, ADE20K, 80k iterations, trained with global attention.

Row seg/fpn_b_g: mIoU 48.0 (published), 54 M parameters.
The same weights with other attention: fpn_uniformer_b_h32.py and fpn_uniformer_b_w32.py.

Train (published with 8 GPUs x 4 images), then test; options as in fpn_uniformer_s.py::

    mim train mmseg configs/seg/fpn_uniformer_b.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/fpn_uniformer_b.py --checkpoint CHECKPOINT
"""

_base_ = './fpn_uniformer_s.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
