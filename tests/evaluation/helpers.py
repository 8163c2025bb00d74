# SPDX-License-Identifier: Apache-2.0
"""Small networks in the toolboxes' own models, for tests of what happens around them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from torch import nn

from uniformer_mm.evaluation.protocol import Choices, build_config, network_of

from ..conftest import ROOT

TINY = dict(depths=(1, 1, 2, 1), dims=(16, 32, 32, 64), head_dim=16)
PACKAGES = {
    'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg', 'pose': 'mmpose', 'video': 'mmaction',
}  # fmt: skip


def enter(task: str) -> None:
    """Register a toolbox's classes and make its scope the current one."""
    import_module(f'{PACKAGES[task]}.utils').register_all_modules(False)
    init_default_scope(PACKAGES[task])


def config_of(name: str, data: Path, folder: Path, **choices) -> Config:
    """The test of a config of this repository."""
    task = name.split('/')[0]
    return build_config(ROOT / 'configs' / name, task, Choices(data=data, **choices), folder)


def shrink(config: Config) -> Config:
    """The same test with a network that costs nothing."""
    network = network_of(config)
    network.backbone.arch = TINY
    network.backbone.pop('with_cp', None)
    dims = list(TINY['dims'])
    if 'neck' in network and 'in_channels' in network.neck:
        network.neck.in_channels = dims
    for name in ('decode_head', 'auxiliary_head', 'cls_head', 'head'):
        head = network.get(name)
        if head and name == 'decode_head' and isinstance(head.in_channels, list):
            head.in_channels = head.in_channels if 'neck' in network else dims
            head.norm_cfg = dict(type='BN')
        elif head and 'in_channels' in head:
            head.in_channels = dims[2] if name == 'auxiliary_head' else dims[-1]
            if 'norm_cfg' in head:
                head.norm_cfg = dict(type='BN')
    return config


def build_model(config: Config, seed: int = 0) -> nn.Module:
    """The network of a configuration with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return model.eval()


def run_pipeline(config: Config, info: dict) -> dict:
    """What the test's transforms make of one sample."""
    results = dict(info)
    for step in config.test_dataloader.dataset.pipeline:
        results = TRANSFORMS.build(step)(results)
    return results
