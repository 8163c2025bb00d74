# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Something-Something V2, 16 frames, from Kinetics-400 16x4.

Row vid/ssv2_b16_k400: top-1 70.4 with 1 clip x 3 crops on 24,777 validation videos (published),
49.7 M parameters, 96.6 GMACs per view.

Train (published with 8 GPUs x 5 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://base_sthv2_16_prek400``::

    mim train mmaction2 configs/video/uniformer_b_16_ssv2.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_16_ssv2.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_16_ssv2.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='uniformer://base_k400_16x4'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
train_dataloader = dict(batch_size=40 // 8)
auto_scale_lr = dict(base_batch_size=40)
randomness = dict(seed=6666)
