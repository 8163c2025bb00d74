# SPDX-License-Identifier: Apache-2.0
"""UperNet, UniFormer-B, ADE20K, 160k iterations, trained with global attention.

Row seg/upernet_b_g: mIoU 50.0, multi-scale and flip 50.8 (published), 80 M parameters.
The same weights with other attention: upernet_uniformer_b_h32.py and upernet_uniformer_b_w32.py.

Train (published with 8 GPUs x 2 images), then test; options as in upernet_uniformer_s.py::

    mim train mmseg configs/seg/upernet_uniformer_b.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/upernet_uniformer_b.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_b.py --checkpoint CHECKPOINT --tta
"""

_base_ = './upernet_uniformer_s.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        # Two blocks of stage 3 are recomputed in the backward pass.
        with_cp=(0, 0, 2, 0),
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
