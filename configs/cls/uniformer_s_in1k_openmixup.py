# SPDX-License-Identifier: Apache-2.0
"""openmixup's UniFormer-S on ImageNet-1K, 300 epochs from random weights, fp16.

Row om/s, published on the validation set for the moving average: top-1 82.29 (21.6 M parameters,
3.63 GMACs; published 3.44G without the attention products). The official recipe gives 82.9.

Train (published with 8 GPUs x 128 images), then test; the published weights are
``uniformer://small_in1k_openmixup``::

    mim train mmpretrain configs/cls/uniformer_s_in1k_openmixup.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_s_in1k_openmixup.py --checkpoint CHECKPOINT

What differs from theirs stands in ``uniformer_t_in1k_openmixup.py``.
"""

_base_ = './uniformer_t_in1k_openmixup.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    clip_grad=None,
    paramwise_cfg=dict(custom_keys={'gamma': dict(decay_mult=0.0)}),
)
param_scheduler = dict(warmup=20)
