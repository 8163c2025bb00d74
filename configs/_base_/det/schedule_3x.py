# SPDX-License-Identifier: Apache-2.0
"""The 1x schedule, three times as long: AdamW for 36 epochs, batch 16 (8 GPUs x 2 images), fp16."""

_base_ = './schedule_1x.py'

epochs = 3 * 12

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500 + 1),
    dict(type='MultiStepLR', milestones=[27, 33], gamma=0.1, by_epoch=True, begin=0, end=epochs),
]
train_cfg = dict(max_epochs=epochs)
