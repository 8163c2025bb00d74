# SPDX-License-Identifier: Apache-2.0
"""AdamW for 12 epochs, batch 16 (8 GPUs x 2 images), fp16.

Source: Sense-X/UniFormer @52a0415 object_detection (mmdet 2.11, apex O1).
"""

# Norms do not decay: the rule matches every parameter whose name contains 'norm', in the backbone
# the block, embedding and output norms. Biases and depthwise position kernels do decay.
# The loss scale is AmpOptimWrapper's default, 'dynamic', and is left out so that
# optim_wrapper.type=OptimWrapper on the command line is all that fp32 (or a CPU) needs.
# DIFFERS: torch autocast instead of apex O1.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='uniformer_mm.FusedAdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)

# mmengine's LinearLR reaches its last factor at step end - 1, mmcv 1's warm-up after 500
# iterations: hence the + 1. The schedulers multiply, as mmcv 1's warm-up and steps do.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500 + 1),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, by_epoch=True, begin=0, end=12),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# --auto-scale-lr multiplies lr by (GPUs x images per GPU) / this.
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
