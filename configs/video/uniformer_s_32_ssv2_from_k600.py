# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Something-Something V2, 32 frames, from Kinetics-600 16x4.

Row vid/ssv2_s32_k600: top-1 70.4 with 1 clip x 3 crops on 24,777 validation videos (published),
21.3 M parameters, 109.4 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://small_sthv2_32_prek600``::

    mim train mmaction2 configs/video/uniformer_s_32_ssv2_from_k600.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_s_32_ssv2_from_k600.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_32_ssv2.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='uniformer://small_k600_16x4')))
