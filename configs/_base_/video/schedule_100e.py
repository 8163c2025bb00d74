# SPDX-License-Identifier: Apache-2.0
"""100 epochs, the first 10 of them warm-up."""

_base_ = './schedule.py'

param_scheduler = dict(total=100, warmup=10, cosine_begin=10)
train_cfg = dict(max_epochs=100)
