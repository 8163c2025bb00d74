# SPDX-License-Identifier: Apache-2.0
"""Every published UniFormer result: its config, its test, its numbers and what to know about it."""

from .catalogue import find_recipe, recipes
from .recipe import TOOLBOXES, AlsoPublished, Measured, Protocol, Recipe, Remark
from .shipped import config_path, config_root, shipped_configs

__all__ = [
    'TOOLBOXES',
    'AlsoPublished',
    'Measured',
    'Protocol',
    'Recipe',
    'Remark',
    'config_path',
    'config_root',
    'find_recipe',
    'recipes',
    'shipped_configs',
]
