# SPDX-License-Identifier: Apache-2.0
"""Option: mask_rcnn_uniformer_s.py from token-labelling weights with 32 channels per head.

The authors found them better for dense tasks and left them out of their tables to compare fairly
(docs/options.md). Twice the heads: more memory for attention, otherwise the same network. Not run
here::

    mim train mmdet configs/det/mask_rcnn_uniformer_s_tl.py --launcher pytorch --gpus 8
"""

_base_ = './mask_rcnn_uniformer_s.py'

# The arch carries head_dim=32, which no tensor's shape shows: with 'small' the weights would load
# into 64-channel heads, so the loader refuses them.
model = dict(
    backbone=dict(
        arch='small_tl',
        init_cfg=dict(checkpoint='uniformer://small_tl_224'),
    ),
)
