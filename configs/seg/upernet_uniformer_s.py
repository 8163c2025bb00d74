# SPDX-License-Identifier: Apache-2.0
"""UperNet, UniFormer-S, ADE20K, 160k iterations, trained with global attention.

One training, three ways to test it (published mIoU, single scale / multi-scale and flip; 52 M
parameters):

seg/upernet_s_g     47.6 / 48.5  as it is
seg/upernet_s_h32   47.0 / 48.5  model.backbone.attention=hybrid model.backbone.window_size=32
seg/upernet_s_w32   46.6 / 48.4  model.backbone.attention=window model.backbone.window_size=32

Train (one process; published with 8 GPUs x 2 images), then test::

    mim train mmseg configs/seg/upernet_uniformer_s.py
    mim train mmseg configs/seg/upernet_uniformer_s.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/upernet_uniformer_s.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_s.py --checkpoint CHECKPOINT --tta

Row seg/upernet_s_h14 (46.9 / 48.0, weights never released) is another training, with
``--cfg-options model.backbone.attention=hybrid``. From random weights:
``--cfg-options model.backbone.init_cfg=None``. With another batch size: ``--auto-scale-lr``.

BatchNorm in the backbone trains with the statistics of each GPU's 2 images and nothing is frozen,
as published. The authors recommend to freeze it: ``model.backbone.norm_eval=True``.
"""

_base_ = [
    '../_base_/seg/upernet.py',
    '../_base_/seg/ade20k.py',
    '../_base_/seg/schedule_upernet_160k.py',
    '../_base_/seg/runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        arch='small',
        attention='global',
        window_size=14,
        drop_path_rate=0.25,
        init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
    ),
)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=16_000))

# Multi-scale and flip (--tta): probabilities averaged over 6 scales of (2048, 512), each twice.
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
