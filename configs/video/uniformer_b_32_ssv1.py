# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Something-Something V1, 32 frames, from Kinetics-400 16x4.

Row vid/ssv1_b32_k400: top-1 60.9 with 1 clip x 3 crops on 11,522 validation videos (published),
49.7 M parameters, 258.3 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://base_sthv1_32_prek400``::

    mim train mmaction2 configs/video/uniformer_b_32_ssv1.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_32_ssv1.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_32_ssv1.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.6,
        init_cfg=dict(checkpoint='uniformer://base_k400_16x4'),
    )
)
randomness = dict(seed=6666)
