# SPDX-License-Identifier: Apache-2.0
"""Scale: uniformer_b_16x4_k400.py with its state shared out over the GPUs (FSDP).

The recipe, its batch and its results stay. Not run on GPUs here; the same strategy runs on two CPU
processes in tests/scale::

    mim train mmaction2 configs/video/uniformer_b_16x4_k400_fsdp.py --launcher pytorch --gpus 8
"""

_base_ = ['./uniformer_b_16x4_k400.py', '../_base_/fsdp.py']

# FSDP flattens every parameter, so "one-dimensional" no longer tells norms and biases from the
# rest; in an arch without residual scales these two rules name the same parameters. The wrapper
# clips by the norm over all GPUs.
optim_wrapper = dict(
    type='uniformer_mm.ShardedAmpOptimWrapper',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
