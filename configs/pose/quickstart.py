# SPDX-License-Identifier: Apache-2.0
"""Top-down heatmaps with a small UniFormer on the synthetic stick figures, on two CPU cores.

The model family, loss, codec and evaluation of ``td_hm_uniformer_s_256x192.py`` at half its input
size, from random weights. Milder augmentation and small batches, because 25 epochs are all there
is. Chance (the mean pose in every true box) is AP 0.001.

    uniformer-mm make-data data
    mim train mmpose configs/pose/quickstart.py
"""

_base_ = [
    '../_base_/quickstart_arch.py',
    '../_base_/pose/simple_baseline.py',
    '../_base_/pose/coco_keypoints.py',
    '../_base_/pose/runtime.py',
]

codec = dict(type='MSRAHeatmap', input_size=(96, 128), heatmap_size=(24, 32), sigma=1)

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(arch=_base_.quickstart_arch),
    head=dict(
        in_channels=_base_.quickstart_arch['dims'][-1],
        deconv_out_channels=(64, 64, 64),
        decoder=codec,
    ),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='uniformer_mm.ClippedBBoxTransform',
        scale_std=0.15,
        rotate_std=15.0,
        rotate_prob=0.6,
    ),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.25),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 25
warmup_iters = 50
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='uniformer_mm.FusedAdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup_iters + 1),
    dict(
        type='MultiStepLR',
        milestones=[epochs * 17 // 21, epochs * 20 // 21],
        gamma=0.1,
        by_epoch=True,
        begin=0,
        end=epochs,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=5)
randomness = dict(seed=0)
