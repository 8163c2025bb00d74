# SPDX-License-Identifier: Apache-2.0
"""From what a user names to a config and its weights: row, config, checkpoint, or a task alone."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from mmengine.config import Config

from ..recipes import Recipe, config_path, config_root, find_recipe
from ..weights import CheckpointError
from ..weights.files import read_checkpoint
from ..weights.resolve import resolve_file
from ..weights.zoo import SCHEME
from .embedded import read_embedded

DEFAULT_ROWS = {
    'det': 'det/mask_rcnn_s_h14_3x_ms',
    'seg': 'seg/upernet_s_g',
    'pose': 'pose/s_256x192',
    'video': 'vid/k400_s_16x4',
    'cls': 'cls_tl/s_224',
}
"""The published row of each task that is taken where the user names no model."""

_SCOPES = {'mmdet': 'det', 'mmseg': 'seg', 'mmpose': 'pose', 'mmaction': 'video'}
_SCOPES |= {'mmaction2': 'video', 'mmpretrain': 'cls'}


@dataclass(frozen=True)
class Choice:
    """What is to be run.

    Attributes:
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        config: The toolbox's config.
        weights: The file, here on this machine.
        meta: What the file says about itself (mmengine's ``meta``).
        recipe: The published result that the weights are of, if any.
    """

    task: str
    config: Config
    weights: Path
    meta: dict
    recipe: Recipe | None


def choose(
    model: str | PathLike | Config | None = None,
    weights: str | PathLike | None = None,
    task: str | None = None,
) -> Choice:
    """Find config and weights.

    Args:
        model: Row of ``uniformer-mm recipes``, name of its weights, or a config (path or loaded).
            None: the config that the checkpoint carries, or the task's default row.
        weights: Path or ``uniformer://`` name; None: the row's own.
        task: One of det, seg, pose, video, cls: whose usual row, where nothing else is named; None:
            det.

    Raises:
        CheckpointError: The weights are not there, or cannot be read.
        ValueError: No such row or config, or one without weights.
    """
    if task is not None and task not in DEFAULT_ROWS:
        raise ValueError(f'task={task!r} is not known; use one of {", ".join(DEFAULT_ROWS)}.')
    recipe, config = None, model
    if model is None and weights is not None and str(weights).startswith(SCHEME):
        model = str(weights)
    if model is None and weights is None:
        model = DEFAULT_ROWS[task or 'det']
    if isinstance(model, str | PathLike):
        recipe, config = _named(str(model))
    if weights is None:
        if recipe is None:
            raise ValueError(
                f'model={_words(model)} is no published row, so it has no weights of its own; name '
                'the checkpoint of its training with --weights FILE.'
            )
        weights = SCHEME + recipe.id
    path = _weights_here(weights)
    file = read_checkpoint(path)
    if config is None:
        config = _carried(path, file.meta)
    found = _SCOPES.get(config.get('default_scope'))
    if found is None or task not in (None, found):
        raise ValueError(
            f'task={task!r}, but the config is of default_scope='
            f'{config.get("default_scope")!r}; the scopes are {", ".join(_SCOPES)}.'
        )
    return Choice(found, config, path, file.meta, recipe)


def _named(name: str) -> tuple[Recipe | None, Config]:
    path = Path(name).expanduser()
    if path.suffix == '.py' and not path.is_file():
        path = config_root() / name.removeprefix('configs/')
    if path.is_file():
        return _recipe_of(path), Config.fromfile(path)
    recipe = find_recipe(name)
    return recipe, Config.fromfile(config_path(recipe))


def _recipe_of(path: Path) -> Recipe | None:
    root, path = config_root(), path.resolve()
    if not path.is_relative_to(root):
        return None
    try:
        return find_recipe(path.relative_to(root).as_posix())
    except ValueError:  # a quickstart or a variant: nothing is published of it
        return None


def _words(model: str | PathLike | Config) -> str:
    return repr(model.filename if isinstance(model, Config) else str(model))


def _weights_here(weights: str | PathLike) -> Path:
    try:
        return resolve_file(weights).path
    except CheckpointError as error:
        if not str(weights).startswith(SCHEME):
            raise
        name = str(weights).removeprefix(SCHEME)
        if 'never released' in str(error):
            raise
        raise CheckpointError(
            f'{weights} is not on this machine and could not be downloaded; with a network, '
            f'uniformer-mm zoo fetch {name} gets it, and uniformer-mm zoo show {name} lists its '
            'mirrors. Without: make demo trains small weights here; pass its checkpoint, for '
            'example --weights work_dirs/demo/det/epoch_8.pth.'
        ) from error


def _carried(path: Path, meta: dict) -> Config:
    text = meta.get('cfg')
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f'{path} does not carry its config; name it: --model CONFIG, or --model ROW for '
            'published weights.'
        )
    return Config(read_embedded(text, str(path)))
