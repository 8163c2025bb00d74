# SPDX-License-Identifier: Apache-2.0
"""UniFormer-B on Kinetics-400, 8 frames at interval 8, from ImageNet-1K.

Row vid/k400_b_8x8: top-1 79.8 with 4 clips x 1 crop on 19,787 validation videos (published), 49.8
M parameters, 40.1 GMACs per view.

Train (published with 8 GPUs x 8 videos, each of which enters twice), then test on 4 clips; the
published weights are ``uniformer://base_k400_8x8``::

    mim train mmaction2 configs/video/uniformer_b_8x8_k400.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_b_8x8_k400.py --checkpoint CHECKPOINT
"""

_base_ = './uniformer_s_8x8_k400.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='uniformer://base_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_dataloader = dict(batch_size=64 // 8)
auto_scale_lr = dict(base_batch_size=64)
