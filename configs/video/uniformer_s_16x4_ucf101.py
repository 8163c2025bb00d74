# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on UCF101, 16 frames at interval 4, from Kinetics-400 16x4.

Row vid/ucf101_s_16x4: top-1 98.3 with 5 clips x 3 crops on 3,783 validation videos (published),
21.2 M parameters, 41.7 GMACs per view.

The README names no split; the scripts read split 1 only. The best checkpoint on the test split is
the one that is tested, as published.

Train (published with 8 GPUs x 16 videos, each of which enters twice), then test on 15 views; the
published weights are ``uniformer://small_ucf101_16x4``::

    mim train mmaction2 configs/video/uniformer_s_16x4_ucf101.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_s_16x4_ucf101.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/video/ucf101.py',
    '../_base_/video/schedule_25e.py',
    '../_base_/video/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_k400_16x4'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_cfg = dict(val_interval=1)
