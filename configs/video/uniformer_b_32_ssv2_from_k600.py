# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Something-Something V2, 32 frames, from Kinetics-600 16x4.

Row vid/ssv2_b32_k600: top-1 71.2 with 1 clip x 3 crops on 24,777 validation videos (published),
49.7 M parameters, 258.3 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 3 crops; the
published weights are ``uniformer://base_sthv2_32_prek600``::

    mim train mmaction2 configs/video/uniformer_b_32_ssv2_from_k600.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_32_ssv2_from_k600.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_b_32_ssv2.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='uniformer://base_k600_16x4')))
