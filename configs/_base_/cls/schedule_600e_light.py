# SPDX-License-Identifier: Apache-2.0
"""AdamW for 600 epochs of batch 4096 (8 GPUs x 512 images), fp32; otherwise ``schedule_300e.py``.

Leaf configs set rate and decay.

Source: Sense-X/UniFormer @52a0415 image_classification/main_light.py and run scripts.
DIFFERS: the official script also evaluates the average of the weights; here it is only tracked.
"""

_base_ = './schedule_300e.py'

optim_wrapper = dict(
    type='OptimWrapper',
    # The script names the class token, whose shape (1, 1, C) is not one-dimensional.
    paramwise_cfg=dict(custom_keys=dict(cls_token=dict(decay_mult=0.0))),
)
param_scheduler = dict(total=600, warmup=30)
train_cfg = dict(max_epochs=600)
custom_hooks = [dict(type='uniformer_mm.TrackedEMAHook', momentum=1 - 0.9999, update_buffers=True)]
auto_scale_lr = dict(base_batch_size=8 * 512)
