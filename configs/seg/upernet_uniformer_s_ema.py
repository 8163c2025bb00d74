# SPDX-License-Identifier: Apache-2.0
"""Option: upernet_uniformer_s.py that evaluates and saves a moving average of its weights.

Not part of the official recipe and not run here; docs/options.md says what is known::

    mim train mmseg configs/seg/upernet_uniformer_s_ema.py --launcher pytorch --gpus 8

``state_dict`` of the checkpoints is the average, ``ema_state_dict`` the weights that train.
"""

_base_ = './upernet_uniformer_s.py'

# The average looks back 1 / 2e-4 = 5000 iterations, 3 % of the run, and begins after the warm-up.
# BatchNorm's running statistics are averaged with the weights that they belong to.
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=2e-4,
        update_buffers=True,
        begin_iter=1500,
    ),
]
