# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on ImageNet-1K, 300 epochs from random weights.

Row cls/s, published on the validation set: top-1 82.9 (21.5 M parameters).

Train (one process; published with 8 GPUs x 128 images), then test::

    mim train mmpretrain configs/cls/uniformer_s_in1k.py
    mim train mmpretrain configs/cls/uniformer_s_in1k.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_s_in1k.py --checkpoint CHECKPOINT

Without a GPU add ``--cfg-options optim_wrapper.type=OptimWrapper`` (fp32: mmengine's fp16 needs a
GPU). With another batch size: ``--auto-scale-lr``. BatchNorm uses each GPU's own
128 images.
"""

_base_ = [
    '../_base_/cls/uniformer.py',
    '../_base_/cls/imagenet.py',
    '../_base_/cls/schedule_300e.py',
    '../_base_/cls/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(arch='small', drop_path_rate=0.1),
)
