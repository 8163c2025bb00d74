# SPDX-License-Identifier: Apache-2.0
"""openmixup's AdamW for 300 epochs of batch 1024, cosine per iteration; its average is published.

Leaf configs set the length of the warm-up, precision, clipping and the decay of residual scales.

Source: Westlake-AI/openmixup @37e1372 configs/classification/imagenet/uniformer (mmcv 1.x). The
warm-up of the average that they list (from 0.9 x 0.99996) never starts: the hook's ``warmup`` is
left at None.
DIFFERS: the average starts from the weights after the first step, theirs from those before it.
"""

# Unlike in the official recipe the depthwise kernels of the position encodings do not decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='uniformer_mm.FusedAdamW',
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(
        custom_keys={
            'norm': dict(decay_mult=0.0),
            'bias': dict(decay_mult=0.0),
            'pos_embed': dict(decay_mult=0.0),
        }
    ),
)

# The warm-up multiplies a cosine that began with it.
param_scheduler = dict(
    type='uniformer_mm.WarmupCosineLR',
    total=300,
    warmup_lr=1e-6 * 1e-3,
    min_lr=1e-5,
    multiply_warmup=True,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)

# Buffers are the model's own. The average is evaluated and saved as the model.
custom_hooks = [dict(type='EMAHook', momentum=1 - 0.99996), dict(type='SyncBuffersHook')]

# --auto-scale-lr multiplies lr by (GPUs x images per GPU) / this.
auto_scale_lr = dict(enable=False, base_batch_size=8 * 128)
