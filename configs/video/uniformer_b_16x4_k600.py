# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Kinetics-600, 16 frames at interval 4, from ImageNet-1K.

Row vid/k600_b_16x4: top-1 84.0 with 4 clips x 1 crop on 28,736 validation videos (published), 49.9
M parameters, 96.6 GMACs per view.

Train (published with 8 GPUs x 5 videos, each of which enters twice), then test on 4 clips; the
published weights are ``uniformer://base_k600_16x4``::

    mim train mmaction2 configs/video/uniformer_b_16x4_k600.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_16x4_k600.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_16x4_k600.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=1.25e-4))
train_dataloader = dict(batch_size=40 // 8)
auto_scale_lr = dict(base_batch_size=40)
