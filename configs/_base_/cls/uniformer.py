# SPDX-License-Identifier: Apache-2.0
"""UniFormer as a classifier: last map, BatchNorm, mean over positions, one linear layer.

Label smoothing 0.1 of the mixed targets with soft cross entropy is timm's arithmetic: on = 0.9 +
0.1 / classes and off = 0.1 / classes, mixed by lambda. The checkpoint's keys are the official ones
under ``backbone.``, and ``head.fc.*`` for ``head.*``.
"""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='uniformer_mm.UniFormer2d', out_indices=(3,), out_norm='bn'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    # One of the two for each batch, with equal chance.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
