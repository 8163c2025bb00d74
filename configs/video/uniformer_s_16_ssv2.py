# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Something-Something V2, 16 frames, from Kinetics-400 16x4.

Row vid/ssv2_s16_k400: top-1 67.7 with 1 clip x 3 crops on 24,777 validation videos (published),
21.3 M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos; each video enters twice, so 64 clips per step)::

    mim train mmaction2 configs/video/uniformer_s_16_ssv2.py
    mim train mmaction2 configs/video/uniformer_s_16_ssv2.py --launcher pytorch --gpus 8

Test on 3 crops per video::

    mim test mmaction2 configs/video/uniformer_s_16_ssv2.py --checkpoint CHECKPOINT

From random weights: ``--cfg-options model.backbone.init_cfg=None``. Without a GPU fp16 training is
not possible; add ``optim_wrapper.type=OptimWrapper``. With another batch size: ``--auto-scale-lr``.

Frames reach the network as BGR, though mmaction2 decodes RGB, and are never flipped.
"""

_base_ = [
    '../_base_/video/recognizer.py',
    '../_base_/video/sthv2.py',
    '../_base_/video/adamw.py',
    '../_base_/video/runtime.py',
]

base_lr = 2e-4
end_lr = 1e-6
epochs = 50
warmup = 5

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.3,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_k400_16x4'),
    ),
    cls_head=dict(num_classes=_base_.num_classes),
    data_preprocessor=_base_.data_preprocessor,
)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
# Linear from end_lr, then a cosine that starts where the warm-up ends; both per iteration.
# DIFFERS: mmengine's LinearLR reaches base_lr one iteration early.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=end_lr / base_lr,
        begin=0,
        end=warmup,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=end_lr,
        begin=warmup,
        end=epochs,
        T_max=epochs - warmup,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
randomness = dict(seed=0)
