# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Kinetics-400, 16 frames at interval 8, from ImageNet-1K.

Row vid/k400_s_16x8: top-1 80.8 with 4 clips x 1 crop on 19,787 validation videos (published), 21.4
M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice), then test on 4 clips; the
published weights are ``uniformer://small_k400_16x8``::

    mim train mmaction2 configs/video/uniformer_s_16x8_k400.py --launcher pytorch --gpus 8
    mim test mmaction2 configs/video/uniformer_s_16x8_k400.py --checkpoint CHECKPOINT
"""

_base_ = [
    '../_base_/video/kinetics400.py',
    '../_base_/video/dense_16x8.py',
    '../_base_/video/schedule_110e.py',
    '../_base_/video/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_dataloader = dict(batch_size=32 // 8, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
auto_scale_lr = dict(base_batch_size=32)
