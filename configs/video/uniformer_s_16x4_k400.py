# SPDX-License-Identifier: Apache-2.0
"""UniFormer-S on Kinetics-400, 16 frames at interval 4, from ImageNet-1K.

Row vid/k400_s_16x4: top-1 80.8 with 4 clips x 1 crop on 19,787 validation videos (published),
21.4 M parameters, 41.7 GMACs per view.

Train (published with 8 GPUs x 4 videos; each video enters twice, so 64 clips per step)::

    mim train mmaction2 configs/video/uniformer_s_16x4_k400.py
    mim train mmaction2 configs/video/uniformer_s_16x4_k400.py --launcher pytorch --gpus 8

Test on 4 views per video::

    mim test mmaction2 configs/video/uniformer_s_16x4_k400.py --checkpoint CHECKPOINT

From random weights: ``--cfg-options model.backbone.init_cfg=None``. Without a GPU fp16 training is
not possible; add ``optim_wrapper.type=OptimWrapper``. With another batch size: ``--auto-scale-lr``.

Labels are mmaction2's, alphabetical. The official checkpoints order the classes in their own way
(0 = riding a bike, 1 = marching, ...): their head must be permuted before it is tested here.
"""

_base_ = [
    '../_base_/video/recognizer.py',
    '../_base_/video/kinetics400.py',
    '../_base_/video/adamw.py',
    '../_base_/video/runtime.py',
]

base_lr = 1e-4
end_lr = 1e-6
epochs = 110
warmup = 10

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.1,
        # 2-D kernels enter the 3-D ones by their mean over time.
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
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
randomness = dict(seed=6666)
