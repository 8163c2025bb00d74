# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps, UniFormer-B, COCO keypoints, 256x192.

Row pose/b_256x192, published on val2017: AP 75.0, AP50 90.6, AP75 83.0, AP-M 67.8, AP-L 77.7, AR
80.4 (53.5 M parameters, 9.2 GMACs).

Train (published with 8 GPUs x 128 persons), then test; the published weights are
``uniformer://top_down_256x192_global_base``::

    mim train mmpose configs/pose/td_hm_uniformer_b_256x192.py --launcher pytorch --gpus 8
    mim test mmpose configs/pose/td_hm_uniformer_b_256x192.py --checkpoint CHECKPOINT
"""

_base_ = './td_hm_uniformer_s_256x192.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
