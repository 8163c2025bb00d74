# SPDX-License-Identifier: Apache-2.0
"""AdamW for 210 epochs with steps at 170 and 200, fp16; leaf configs set ``lr`` and the batch.

Source: Sense-X/UniFormer @52a0415 pose_estimation/exp (mmpose 0.16).
"""

# AmpOptimWrapper is torch's fp16 autocast; its loss scale is dynamic unless told otherwise. Every
# parameter decays, norms and biases too, and gradients are not clipped.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='uniformer_mm.FusedAdamW', betas=(0.9, 0.999), weight_decay=0.01),
)

# mmengine's LinearLR reaches its last factor at step end - 1, mmcv 1 after 500 iterations: hence
# the + 1.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500 + 1),
    dict(type='MultiStepLR', milestones=[170, 200], gamma=0.1, by_epoch=True, begin=0, end=210),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=210, val_interval=10)

# --auto-scale-lr multiplies lr by (GPUs x persons per GPU) / this.
auto_scale_lr = dict(enable=False)
