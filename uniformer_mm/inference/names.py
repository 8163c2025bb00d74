# SPDX-License-Identifier: Apache-2.0
"""Names and colours of a model's classes, from the file, the config or the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from ..labels import class_names
from .choice import Choice
from .drawing import Color, distinct_colors


@dataclass(frozen=True)
class Names:
    """Classes and the colours that they are drawn in."""

    classes: tuple[str, ...]
    colors: tuple[Color, ...]


def names_of(choice: Choice, classes: Sequence[str] | None = None) -> Names:
    """What the classes of a model are called.

    In this order: the caller's names; those that mmengine saved with the weights; those that the
    config gives its data set; those of the data set's own type; for Kinetics, this package's lists;
    the folders of a list of clips.

    Args:
        choice: Config and weights; the toolbox's data sets are registered.
        classes: Names that the caller gives.

    Returns:
        Names and colours; numbers stand in for names that nobody knows.

    Raises:
        ValueError: The caller gives too many or too few.
    """
    if choice.task == 'pose':
        return Names((), ())
    count = class_count(choice.config, choice.task)
    dataset = choice.config.get('test_dataloader', {}).get('dataset', {})
    if classes is not None:
        if count and len(classes) != count:
            raise ValueError(
                f'classes={list(classes)[:3]}... are {len(classes)} names; the model has {count} '
                'classes.'
            )
        return Names(tuple(classes), tuple(distinct_colors(len(classes))))
    saved = choice.meta.get('dataset_meta') or {}
    kind = str(dataset.get('type'))
    if '.' not in kind:
        kind = f'{choice.config.default_scope}.{kind}'
    own = getattr(DATASETS.get(kind), 'METAINFO', {})
    for source in (saved, dataset.get('metainfo') or {}, own):
        found = source.get('classes') or source.get('CLASSES')
        if found and not isinstance(found, str) and count in (0, len(found)):
            return Names(tuple(found), _colors(tuple(found), source, own))
    found = _clip_classes(choice, dataset, count) or [f'class {i}' for i in range(count)]
    return Names(tuple(found), tuple(distinct_colors(len(found))))


def class_count(config: Config, task: str) -> int:
    """How many classes the head of a model tells apart; 0 where its config does not say."""
    model = config.model
    if task == 'det':
        heads = model.get('roi_head', {}).get('bbox_head') or model.get('bbox_head') or {}
        head = heads[0] if isinstance(heads, list | tuple) else heads
    else:
        head = model.get({'seg': 'decode_head', 'video': 'cls_head', 'cls': 'head'}.get(task), {})
    return (head or {}).get('num_classes') or model.backbone.get('num_classes') or 0


def _colors(classes: tuple[str, ...], source: Any, own: Any) -> tuple[Color, ...]:
    palette = source.get('palette') or source.get('PALETTE') or ()
    if not isinstance(palette, str) and len(palette) == len(classes):
        return tuple(tuple(int(part) for part in color) for color in palette)
    # Some of the data set's classes keep the colours that they have there.
    known = dict(zip(own.get('classes') or (), own.get('palette') or (), strict=False))
    if all(name in known for name in classes):
        return tuple(tuple(known[name]) for name in classes)
    return tuple(distinct_colors(len(classes)))


def _clip_classes(choice: Choice, dataset: Any, count: int) -> list[str] | None:
    if choice.task != 'video':
        return None
    if choice.recipe is not None and choice.recipe.row.class_order:
        order = choice.recipe.row.class_order.rpartition('_')[0]
        return list(class_names(f'{order}_alphabetical'))
    listed = Path(str(dataset.get('ann_file') or ''))
    if not listed.is_file():
        return None
    found: dict[int, set[str]] = {}
    for line in listed.read_text(encoding='utf-8').splitlines():
        path, _, label = line.strip().rpartition(' ')
        if not label.isdecimal() or '/' not in path:
            return None
        found.setdefault(int(label), set()).add(path.split('/')[-2])
    one_each = all(len(folders) == 1 for folders in found.values())
    complete = sorted(found) == list(range(count))
    return [found[index].pop() for index in range(count)] if one_each and complete else None
