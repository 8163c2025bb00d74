# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Something-Something V1, 16 frames, from Kinetics-600 16x4.

Row vid/ssv1_s16_k600: top-1 57.6 with 1 clip x 3 crops on 11,522 validation videos (published),
21.3 M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://small_sthv1_16_prek600``::

    mim train mmaction2 configs/video/uniformer_s_16_ssv1_from_k600.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_s_16_ssv1_from_k600.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_16_ssv1.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='uniformer://small_k600_16x4')))
