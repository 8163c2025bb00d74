# SPDX-License-Identifier: Apache-2.0
"""Where the configs are: in a clone, and in an installed package.

The package's ``.mim`` folder holds them where OpenMMLab's ``mim`` looks for configs. In the
repository ``.mim/configs`` is a link to ``configs/``; a wheel holds the files themselves.
"""

from __future__ import annotations

from pathlib import Path

from .recipe import TOOLBOXES, Recipe

MIM_ROOT = Path(__file__).resolve().parents[1] / '.mim'


def config_root() -> Path:
    """The folder of all configs.

    Raises:
        ValueError: The installation lacks them.
    """
    root = (MIM_ROOT / 'configs').resolve()
    if not root.is_dir():
        raise ValueError(
            f'this installation of uniformer_mm has no configs (no folder {root}); install it from '
            'a wheel or with pip install -e from a clone.'
        )
    return root


def config_path(recipe: Recipe) -> Path:
    """Absolute path of a recipe's config.

    Raises:
        ValueError: The installation lacks it.
    """
    path = config_root() / recipe.config
    if not path.is_file():
        raise ValueError(f'{recipe.id}: its config {path} is not there; reinstall uniformer_mm.')
    return path


def shipped_configs() -> list[str]:
    """Every config that can be run, relative to the folder of all configs."""
    root = config_root()
    return sorted(
        path.relative_to(root).as_posix()
        for task in TOOLBOXES
        for path in (root / task).glob('*.py')
    )
