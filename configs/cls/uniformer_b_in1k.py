# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on ImageNet-1K, 300 epochs from random weights.

Row cls/b, published on the validation set: top-1 83.8 (49.8 M parameters, 8.25 GMACs).

Train (published with 8 GPUs x 128 images), then test; the published weights are
``uniformer://base_in1k``::

    mim train mmpretrain configs/cls/uniformer_b_in1k.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_b_in1k.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3))
optim_wrapper = dict(optimizer=dict(lr=4e-4 * (8 * 128) / 512))
