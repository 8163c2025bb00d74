# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps, UniFormer-B, COCO keypoints, 448x320.

Row pose/b_448x320, published on val2017: AP 77.4, AP50 91.1, AP75 84.4, AP-M 70.2, AP-L 80.6, AR
82.5 (53.5 M parameters, 29.5 GMACs).

Train (published with 8 GPUs x 32 persons), then test; the published weights are
``uniformer://top_down_448x320_global_base``::

    mim train mmpose configs/pose/td_hm_uniformer_b_448x320.py --launcher pytorch --gpus 8
    mim test mmpose configs/pose/td_hm_uniformer_b_448x320.py --checkpoint CHECKPOINT

The released modulate_kernel=17 has no effect with post_process 'default'.
"""

_base_ = './td_hm_uniformer_s_448x320.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.55,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=8 * 32)
