# SPDX-License-Identifier: Apache-2.0
"""AdamW with fp16, and the seed of most runs; leaf configs set ``lr``.

Source: Sense-X/UniFormer @52a0415 video_classification (run.sh, defaults.py, optimizer.py).
"""

# Nothing one-dimensional decays: norms, biases, residual scales of attention blocks. Everything
# else does, the depthwise position kernels included.
# The loss scale is AmpOptimWrapper's default, 'dynamic', and is left out so that
# optim_wrapper.type=OptimWrapper on the command line is all that fp32 (or a CPU) needs.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='uniformer_mm.FusedAdamW', betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
    # The fork's default; it stands in no yaml.
    clip_grad=dict(max_norm=20, norm_type=2),
)
randomness = dict(seed=6666)
