# SPDX-License-Identifier: Apache-2.0
"""Option: mask_rcnn_uniformer_s.py with the backbone's BatchNorm frozen, as its authors recommend.

"Frozen" is norm_eval: the stages normalise with the statistics of ImageNet instead of those of a
GPU's 2 images; scales and shifts still learn. docs/options.md says what is known of the gain: the
authors' word, no number. Not run here::

    mim train mmdet configs/det/mask_rcnn_uniformer_s_frozen_bn.py --launcher pytorch --gpus 8
"""

_base_ = './mask_rcnn_uniformer_s.py'

model = dict(backbone=dict(norm_eval=True))
