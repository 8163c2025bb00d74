# SPDX-License-Identifier: Apache-2.0
"""The reference network as a backbone of the toolboxes, to train the same recipe with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict

from mmengine.model import BaseModule
from torch import Tensor, nn

from tools.benchmark.variants import NOT_OPTIONS, LastStage
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models.arch import resolve_arch
from uniformer_mm.registry import MODELS

# What our backbone knows and the reference does without: memory, freezing, loading.
IGNORED = ('type', 'with_cp', 'norm_eval', 'frozen_stages', 'init_cfg', 'residual_dtype')


def _network(rank: int, arch: str | dict, dense: bool, **options) -> OfficialUniFormer:
    fields = {k: v for k, v in asdict(resolve_arch(arch)).items() if k not in NOT_OPTIONS}
    return OfficialUniFormer(rank, **fields, num_classes=None if dense else 1, **options)


@MODELS.register_module()
class ReferenceUniFormer2d(BaseModule):
    """Dense reference for images; ``out_indices`` selects among its four maps."""

    prefix = 'trunk.'

    def __init__(
        self, arch: str | dict, out_indices: Sequence[int] = (0, 1, 2, 3), **options
    ) -> None:
        super().__init__()
        trunk = _network(2, arch, dense=True, **options)
        for stage in set(range(4)) - set(out_indices):
            setattr(trunk, f'norm{stage + 1}', nn.Identity())
        self.out_indices = tuple(out_indices)
        self.trunk = trunk

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps of the requested stages."""
        maps = self.trunk(x)
        return tuple(maps[index] for index in self.out_indices)


@MODELS.register_module()
class ReferenceUniFormer3d(BaseModule):
    """Reference for clips: stage 4 after its BatchNorm."""

    prefix = 'trunk.network.'

    def __init__(self, arch: str | dict, **options) -> None:
        super().__init__()
        self.trunk = LastStage(_network(3, arch, dense=False, **options))

    def forward(self, x: Tensor) -> Tensor:
        """The last map."""
        return self.trunk(x)


@MODELS.register_module()
class ReferenceTrunk2d(ReferenceUniFormer3d):
    """The same for images, as a tuple."""

    def __init__(self, arch: str | dict, **options) -> None:
        BaseModule.__init__(self)
        self.trunk = LastStage(_network(2, arch, dense=False, **options))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The last map in a tuple."""
        return (self.trunk(x),)


def reference_backbone(ours: dict) -> dict:
    """The configuration of the reference that stands for one of ours."""
    options = {key: value for key, value in ours.items() if key not in IGNORED}
    norm = options.pop('out_norm', None)
    if ours['type'].endswith('2d') and norm != 'bn':
        return {'type': 'uniformer_mm.ReferenceUniFormer2d', **options}
    options.pop('out_indices', None)
    kind = 'ReferenceTrunk2d' if ours['type'].endswith('2d') else 'ReferenceUniFormer3d'
    return {'type': f'uniformer_mm.{kind}', **options}


def renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model with our backbone, for the same model with the reference."""
    prefix = 'backbone.' + getattr(model.backbone, 'prefix', '')
    return {re.sub(r'^backbone\.', prefix, name): tensor for name, tensor in state.items()}
