# SPDX-License-Identifier: Apache-2.0
"""AdamW for 300 epochs of batch 1024 (8 GPUs x 128 images), cosine per epoch, fp16, tracked EMA.

Source: Sense-X/UniFormer @52a0415 image_classification/main.py and run scripts (timm 0.4.12).
"""

# AmpOptimWrapper is torch's fp16 autocast; its loss scale is dynamic unless told otherwise.
# No decay on one-dimensional parameters: norms and biases. The depthwise kernels of the position
# encodings do decay. Gradients are not clipped.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='uniformer_mm.FusedAdamW',
        lr=5e-4 * (8 * 128) / 512,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)

# The script sets the rate after each epoch from that epoch's index: epochs 0 and 1 both run at
# warmup_lr and everything else one epoch late.
param_scheduler = dict(
    type='uniformer_mm.WarmupCosineLR',
    total=300,
    warmup=5,
    warmup_lr=1e-6,
    min_lr=1e-5,
    lag=1,
    by_epoch=True,
)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)

# Decay 0.99996, buffers too. It is only tracked: the raw model is evaluated and published.
custom_hooks = [dict(type='uniformer_mm.TrackedEMAHook', momentum=1 - 0.99996, update_buffers=True)]

# All GPUs take the BatchNorm statistics of the first before each step, torch's DDP default.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)

# --auto-scale-lr multiplies lr by (GPUs x images per GPU) / this.
auto_scale_lr = dict(enable=False, base_batch_size=8 * 128)
