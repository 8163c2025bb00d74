# SPDX-License-Identifier: Apache-2.0
"""110 epochs, the first 10 of them warm-up."""

_base_ = './schedule.py'

param_scheduler = dict(total=110, warmup=10, cosine_begin=10)
train_cfg = dict(max_epochs=110)
