# SPDX-License-Identifier: Apache-2.0
"""25 epochs, the first 5 of them warm-up."""

_base_ = './schedule.py'

param_scheduler = dict(total=25, warmup=5, cosine_begin=5)
train_cfg = dict(max_epochs=25)
