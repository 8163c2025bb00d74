# SPDX-License-Identifier: Apache-2.0
"""UperNet, UniFormer-S, ADE20K, 160k iterations, trained with global attention.

Row seg/upernet_s_g: mIoU 47.6, multi-scale and flip 48.5 (published), 52 M parameters. The same
weights with other attention: upernet_uniformer_s_h32.py and upernet_uniformer_s_w32.py.

Train (one process; published with 8 GPUs x 2 images), then test::

    mim train mmseg configs/seg/upernet_uniformer_s.py
    mim train mmseg configs/seg/upernet_uniformer_s.py --launcher pytorch --gpus 8
    mim test mmseg configs/seg/upernet_uniformer_s.py --checkpoint CHECKPOINT
    mim test mmseg configs/seg/upernet_uniformer_s.py --checkpoint CHECKPOINT --tta

From random weights: ``--cfg-options model.backbone.init_cfg=None``. With another batch size:
``--cfg-options auto_scale_lr.enable=True`` (mmseg has no option of its own for it).

BatchNorm in the backbone trains with the statistics of each GPU's 2 images and nothing is frozen,
as published. The authors recommend to freeze it: ``model.backbone.norm_eval=True``
(docs/options.md).
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
