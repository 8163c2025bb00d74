# SPDX-License-Identifier: Apache-2.0
"""A light UniFormer as a classifier: its own two linear layers, trained with equal weight.

The network is ``uniformer_mm``'s own classifier, so that its keys are the official ones under
``backbone.``; the head in mmpretrain has no parameters. Tests score the pooled map alone. Leaf
configs set the arch. Targets as in ``uniformer.py``.

Source: Sense-X/UniFormer @52a0415 image_classification (uniformer_light.py, engine_light.py).
"""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='uniformer_mm.UniFormer2dClassifier', num_classes=1000, as_tuple=True),
    head=dict(
        type='uniformer_mm.ImagePairHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=1000),
        topk=(1, 5),
    ),
    # One of the two for each batch, with equal chance.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
