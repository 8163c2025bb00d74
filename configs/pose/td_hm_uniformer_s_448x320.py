# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps, UniFormer-S, COCO keypoints, 448x320.

Row pose/s_448x320, published on val2017: AP 76.2, AP50 90.6, AP75 83.2, AP-M 68.6, AP-L 79.4, AR
81.4 (25.2 M parameters, 14.7 GMACs).

Train (published with 8 GPUs x 64 persons), then test; the published weights are
``uniformer://top_down_448x320_global_small``::

    mim train mmpose configs/pose/td_hm_uniformer_s_448x320.py --launcher pytorch --gpus 8
    mim test mmpose configs/pose/td_hm_uniformer_s_448x320.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/pose/simple_baseline.py',
    '../_base_/pose/coco_448x320.py',
    '../_base_/pose/schedule_210e.py',
    '../_base_/pose/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
    head=dict(decoder=_base_.codec),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=8 * 64)
