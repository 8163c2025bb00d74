# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Something-Something V2, 16 frames, from Kinetics-400 16x4.

Row vid/ssv2_s16_k400: top-1 67.7 with 1 clip x 3 crops on 24,777 validation videos (published),
21.3 M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://small_sthv2_16_prek400``::

    mim train mmaction2 configs/video/uniformer_s_16_ssv2.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_s_16_ssv2.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/video/sthv2.py',
    '../_base_/video/segments_16.py',
    '../_base_/video/schedule_50e.py',
    '../_base_/video/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.3,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_k400_16x4'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_dataloader = dict(batch_size=32 // 8, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
auto_scale_lr = dict(base_batch_size=32)
randomness = dict(seed=0)
