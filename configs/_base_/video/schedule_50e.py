# SPDX-License-Identifier: Apache-2.0
"""50 epochs, the first 5 of them warm-up."""

_base_ = './schedule.py'

param_scheduler = dict(total=50, warmup=5, cosine_begin=5)
train_cfg = dict(max_epochs=50)
