# SPDX-License-Identifier: Apache-2.0
"""Option: upernet_uniformer_b.py with learning rates that fall towards the input.

Each block learns at 0.95 times the rate of the next one; the heads keep the recipe's rate. Not part
of the official recipe and not run here; docs/options.md says where the number comes from::

    mim train mmseg configs/seg/upernet_uniformer_b_layer_decay.py --launcher pytorch --gpus 8
"""

_base_ = './upernet_uniformer_b.py'

# 40 blocks and the stem: the stem learns at 0.95**41 = 0.12 of the full rate. The recipe's rule
# that norms do not decay stays.
optim_wrapper = dict(
    constructor='uniformer_mm.LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.95),
)
