# SPDX-License-Identifier: Apache-2.0
"""Toolbox heads for classifiers that have their own linear layers, and two logits in training.

An hourglass classifier (``classifier.py``) is a toolbox's backbone with the official keys; its head
in the toolbox has no parameters. It scores the logits of the pooled map, and trains these and the
class token's with equal weight. The head of the toolbox does the work, and is built by name in the
toolbox's scope: no toolbox is imported here.

Source: Sense-X/UniFormer @52a0415 ``image_classification/engine_light.py``,
``video_classification/tools/train_net_cls.py`` (0.5 of each loss).
"""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS, register

Logits = Tensor | tuple[Tensor, ...]


def _mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Losses are averaged; what else a head reports is that of the first logits."""
    return {
        name: sum(part[name] for part in parts) / len(parts) if 'loss' in name else value
        for name, value in parts[0].items()
    }


@register(MODELS)
class ImagePairHead(BaseModule):
    """mmpretrain's ``ClsHead`` for the tuple of one or two logits ``(B, K)``.

    Args:
        num_classes: Classes K, for those who read the config; the logits have them already.
        **options: Of ``ClsHead``: ``loss``, ``topk``, ``cal_acc``.
    """

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = MODELS.build(dict(type='ClsHead', **options))

    def forward(self, logits: tuple[Tensor, ...]) -> Tensor:
        """The logits of the pooled map."""
        return logits[0]

    def loss(self, logits: tuple[Tensor, ...], data_samples: list, **kwargs: Any) -> dict:
        """Mean of the losses of all logits."""
        return _mean([self.head.loss((part,), data_samples, **kwargs) for part in logits])

    def predict(self, logits: tuple[Tensor, ...], data_samples: list | None = None) -> list:
        """Scores and labels of the first logits."""
        return self.head.predict(logits[:1], data_samples)


@register(MODELS)
class ClipPairHead(BaseModule):
    """mmaction2's ``I3DHead`` without its linear layer, for one or two logits ``(B, K)``.

    Args:
        num_classes: Classes K.
        **options: Of ``I3DHead``: ``loss_cls``, ``label_smooth_eps``, ``average_clips``, ...
    """

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        settings = dict(type='I3DHead', num_classes=num_classes, in_channels=num_classes)
        self.head = MODELS.build(settings | options | dict(dropout_ratio=0.0))
        self.head.fc_cls = nn.Identity()

    def forward(self, logits: Logits) -> Tensor:
        """The logits of the pooled map."""
        return logits if isinstance(logits, Tensor) else logits[0]

    def loss(self, logits: Logits, data_samples: list, **_: Any) -> dict:
        """Mean of the losses of all logits."""
        parts = (logits,) if isinstance(logits, Tensor) else logits
        return _mean([self.head.loss_by_feat(part, data_samples) for part in parts])

    def predict(self, logits: Logits, data_samples: list, **_: Any) -> list:
        """Scores and labels of the first logits, views joined as ``average_clips`` says."""
        return self.head.predict_by_feat(self(logits), data_samples)
