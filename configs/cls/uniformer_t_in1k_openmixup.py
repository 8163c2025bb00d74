# SPDX-License-Identifier: Apache-2.0
"""openmixup's UniFormer-T on ImageNet-1K, 300 epochs from random weights.

Row om/t, published on the validation set for the moving average: top-1 78.02 (5.6 M parameters,
0.97 GMACs; published 0.88G without the attention products).

Train (published with 8 GPUs x 128 images), then test; no weights were released::

    mim train mmpretrain configs/cls/uniformer_t_in1k_openmixup.py --launcher pytorch --gpus 8
    mim test mmpretrain configs/cls/uniformer_t_in1k_openmixup.py --checkpoint CHECKPOINT

DIFFERS: stages 3 and 4 trained without stochastic depth there, because a keyword was misspelled.
DIFFERS: LayerNorm eps in the patch embeddings is 1e-5, theirs 1e-6.
"""

_base_ = [
    '../_base_/cls/uniformer.py',
    '../_base_/cls/imagenet.py',
    '../_base_/cls/schedule_300e_openmixup.py',
    '../_base_/cls/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.1,
        layer_scale=1e-6,
        # Convolutions too; officially they keep PyTorch's initialisation.
        init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
    ),
    head=dict(in_channels=256),
)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = dict(warmup=5)
