# SPDX-License-Identifier: Apache-2.0
"""Scale: mask_rcnn_uniformer_b.py with its state shared out over the GPUs (FSDP).

The recipe, its batch and its results stay; each GPU holds one part of the parameters, gradients and
moments. Not run on GPUs here; the same strategy runs on two CPU processes in tests/scale::

    mim train mmdet configs/det/mask_rcnn_uniformer_b_fsdp.py --launcher pytorch --gpus 8
"""

_base_ = ['./mask_rcnn_uniformer_b.py', '../_base_/fsdp.py']

model = dict(backbone=dict(with_cp=(0, 0, 20, 0)))
# Divides by the loss scale where all GPUs see each other's overflows.
optim_wrapper = dict(type='uniformer_mm.ShardedAmpOptimWrapper')
