# SPDX-License-Identifier: Apache-2.0
"""UniFormer, average pooling and one linear layer; soft cross entropy with smoothing 0.1.

Leaf configs set the arch; data sets set ``cls_head.num_classes`` and the ``augments`` of the
blending, which are ``mixing`` with their number of classes.
"""

model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        # 0.45 and 0.225 of the range 0..1, for every channel.
        mean=[0.45 * 255] * 3,
        std=[0.225 * 255] * 3,
        format_shape='NCTHW',
        # Each batch of a GPU is mixed, half of them by CutMix.
        blending=dict(type='RandomBatchAugment'),
    ),
    backbone=dict(type='uniformer_mm.UniFormer3d'),
    cls_head=dict(
        type='I3DHead',
        in_channels=512,
        # DROPOUT_RATE 0.5 of the official yaml is never read.
        dropout_ratio=0.0,
        # Official: the same, cut off at a hundred standard deviations.
        init_std=0.02,
        # Targets are 0.9 * one-hot + 0.1 / classes, before and so after mixing.
        label_smooth_eps=0.1,
        # The mean of the views' logits ranks classes as their official sum does; 'prob' would not.
        average_clips='score',
    ),
)

mixing = [
    dict(type='uniformer_mm.MirrorMixup', alpha=0.8),
    dict(type='uniformer_mm.MirrorCutmix', alpha=1.0),
]
