# SPDX-License-Identifier: Apache-2.0
"""The learning rate of all video recipes, per iteration; ``schedule_*e.py`` set its length.

Linear from 1e-6 to lr over the warm-up, then a cosine that begins there and ends at 1e-6.

Source: Sense-X/UniFormer @52a0415 video_classification/slowfast/utils/lr_policy.py.
"""

_base_ = './adamw.py'

param_scheduler = dict(
    type='uniformer_mm.WarmupCosineLR',
    warmup_lr=1e-6,
    min_lr=1e-6,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(type='EpochBasedTrainLoop', val_interval=5)
