# SPDX-License-Identifier: Apache-2.0
"""Every config that can be run, loaded and built on the meta device once a process."""

from __future__ import annotations

import importlib
from functools import cache

import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from uniformer_mm.recipes import Recipe, config_root, recipes, shipped_configs

SCOPES = {
    'cls': 'mmpretrain',
    'det': 'mmdet',
    'seg': 'mmseg',
    'pose': 'mmpose',
    'video': 'mmaction',
}
LEAVES = shipped_configs()
OWNERS: dict[str, Recipe] = {config: recipe for recipe in recipes() for config in recipe.configs}
OWNED = [leaf for leaf in LEAVES if leaf in OWNERS]
TRAINED = [leaf for leaf in OWNED if OWNERS[leaf].training == OWNERS[leaf].id]
EXTRAS = [leaf for leaf in LEAVES if leaf not in OWNERS and 'quickstart' not in leaf]
"""Options and variants for many GPUs; each inherits a leaf of the catalogue."""


def load(leaf: str) -> Config:
    """A fresh copy of a config."""
    return Config.fromfile(config_root() / leaf)


@cache
def toolbox(task: str) -> str:
    """The scope of a task, with its toolbox's modules registered; skips where it is missing."""
    scope = SCOPES[task]
    pytest.importorskip(scope, reason=f'{scope} is not installed; make setup installs it')
    importlib.import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)
    return scope


@cache
def model(leaf: str) -> nn.Module:
    """The network of a config without memory behind its parameters; not to be changed."""
    scope = toolbox(leaf.partition('/')[0])
    with torch.device('meta'), DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(load(leaf).model).eval()


def stages(backbone: nn.Module) -> list[nn.ModuleList]:
    """Blocks of the four stages."""
    return [getattr(backbone, f'blocks{stage}') for stage in range(1, 5)]
