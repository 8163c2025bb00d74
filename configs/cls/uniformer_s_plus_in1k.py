# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S+ (convolutional stem, head_dim 32) on ImageNet-1K, 300 epochs from random weights.

Row cls/s_plus, published on the validation set: top-1 83.4 (24.0 M parameters, 4.20 GMACs). The
file was replaced on 2022-02-23; the first one scored 83.3.

Train (published with 8 GPUs x 128 images), then test; the published weights are
``uniformer://small_plus_in1k``::

    mim train mmpretrain configs/cls/uniformer_s_plus_in1k.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_s_plus_in1k.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_in1k.py'

model = dict(backbone=dict(arch='small_plus'))
