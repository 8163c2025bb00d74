# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B with layer scale in its attention blocks on ImageNet-1K, from random weights.

Row cls/b_ls, published on the validation set: top-1 83.9 (49.8 M parameters, 8.25 GMACs).

Train (published with 8 GPUs x 128 images), then test; the published weights are
``uniformer://base_ls_in1k``::

    mim train mmpretrain configs/cls/uniformer_b_ls_in1k.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_b_ls_in1k.py --checkpoint CHECKPOINT

The scales are one-dimensional and so do not decay.
"""

_base_ = './uniformer_b_in1k.py'

model = dict(backbone=dict(arch='base_ls'))
