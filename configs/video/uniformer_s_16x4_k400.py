# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Kinetics-400, 16 frames at interval 4, from ImageNet-1K.

Row vid/k400_s_16x4: top-1 80.8 with 4 clips x 1 crop on 19,787 validation videos (published),
21.4 M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos, each of which enters twice)::

    mim train mmaction2 configs/video/uniformer_s_16x4_k400.py
    mim train mmaction2 configs/video/uniformer_s_16x4_k400.py --launcher pytorch --gpus 8

Test on 4 clips; the published weights are ``uniformer://small_k400_16x4``::

    mim test mmaction2 configs/video/uniformer_s_16x4_k400.py --checkpoint CHECKPOINT

From random weights: ``--cfg-options model.backbone.init_cfg=None``. Without a GPU fp16 training is
not possible; add ``optim_wrapper.type=OptimWrapper``. With another batch size: ``--auto-scale-lr``.
All this goes for the other video configs too.

Labels are mmaction2's, alphabetical. The official checkpoints order the classes in their own way
(0 = riding a bike, 1 = marching, ...): under ``uniformer://`` names their heads come permuted.
"""

_base_ = [
    '../_base_/video/kinetics400.py',
    '../_base_/video/dense_16x4.py',
    '../_base_/video/schedule_110e.py',
    '../_base_/video/runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.1,
        # 2-D kernels enter the 3-D ones by their mean over time.
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_dataloader = dict(batch_size=32 // 8, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
auto_scale_lr = dict(base_batch_size=32)
