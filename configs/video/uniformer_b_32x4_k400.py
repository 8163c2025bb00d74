# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Kinetics-400, 32 frames at interval 4, from ImageNet-1K.

Row vid/k400_b_32x4: top-1 82.9 with 4 clips x 1 crop on 19,787 validation videos (published), 49.8
M parameters, 258.3 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 4 clips; the
published weights are ``uniformer://base_k400_32x4``::

    mim train mmaction2 configs/video/uniformer_b_32x4_k400.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_32x4_k400.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_32x4_k400.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    )
)
