# SPDX-License-Identifier: Apache-2.0
"""A token-labelling classifier in evaluation: logits of the pooled map + max over tokens / 2.

The network is ``uniformer_mm``'s own, with both of its linear layers, so that its keys are the
official ones under ``backbone.``; mmpretrain's head has no parameters and scores the logits. Leaf
configs set the arch.

These configs test. Their training needs a map of labels for each image, which this version does not
read: there is no training part.

Source: Sense-X/UniFormer @52a0415 token_labeling (tlt/models/uniformer.py, validate.py).
"""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='uniformer_mm.UniFormer2dClassifier', num_classes=1000, as_tuple=True),
    head=dict(type='ClsHead', topk=(1, 5)),
)

# validate.py takes timm's default for vision transformers, which is ImageNet's mean and deviation
# up to timm 0.4.5 and this from 0.4.12 on; nobody states which one the weights were trained with.
half_range = dict(mean=[0.5 * 255] * 3, std=[0.5 * 255] * 3)
