# SPDX-License-Identifier: Apache-2.0
"""AdamW for 160 000 iterations of batch 16 (8 GPUs x 2 images), linear decay, fp32.

Source: Sense-X/UniFormer @52a0415 semantic_segmentation (mmseg 0.13).
"""

# Norms do not decay: the rule matches every parameter whose name contains 'norm'. The heads'
# BatchNorms are called 'bn' and do decay, as biases and depthwise position kernels do.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='uniformer_mm.FusedAdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)

# mmcv 1's warm-up multiplies the already decaying rate, so both schedulers begin at 0. mmengine's
# LinearLR and PolyLR reach their last value at step end - 1, mmcv 1 at step end: hence the + 1.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500 + 1),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160_000 + 1),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160_000, val_interval=16_000)

# --auto-scale-lr multiplies lr by (GPUs x images per GPU) / this.
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
