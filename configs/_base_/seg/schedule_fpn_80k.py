# SPDX-License-Identifier: Apache-2.0
"""AdamW for 80 000 iterations of batch 32 (8 GPUs x 4 images), cosine, fp32.

Source: Sense-X/UniFormer @52a0415 semantic_segmentation/fpn_seg (mmseg 0.13).
"""

# Every parameter decays, norms and biases too: the recipe has no rule.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='uniformer_mm.FusedAdamW', lr=2 * 1e-4, betas=(0.9, 0.999), weight_decay=1e-4
    ),
)

# mmcv 1's warm-up multiplies the already decaying rate, so both schedulers begin at 0. mmengine's
# LinearLR reaches its last factor at step end - 1, mmcv 1 after 1000 iterations: hence the + 1.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000 + 1),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-8, by_epoch=False, begin=0, end=80_000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=80_000, val_interval=4000)

# --auto-scale-lr multiplies lr by (GPUs x images per GPU) / this.
auto_scale_lr = dict(enable=False, base_batch_size=8 * 4)
