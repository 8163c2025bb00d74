# SPDX-License-Identifier: Apache-2.0
"""Lists that a toolbox would misread: ImageNet's folders, orders of Kinetics classes."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from ...labels import class_names
from ..class_ids import class_ids

_IMAGES = ('.jpg', '.jpeg', '.png')
ORDERS = ('alphabetical', 'official')


def write_image_list(config: Config, classes: str | None, folder: Path) -> None:
    """List ImageNet's images with their class ids in a file, and let the config read that.

    Nothing is done where the data set has its own list (``meta/val.txt``) or is no ImageNet.

    Args:
        config: Configuration of the test.
        classes: Class ids of the subfolders, see ``class_ids.py``.
        folder: Where the list goes.

    Raises:
        ValueError: No images, or class folders that are not those of the model.
    """
    dataset = config.test_dataloader.dataset
    if dataset.type != 'ImageNet':
        return
    root = Path(dataset.data_root)
    if dataset.get('ann_file') or (root / 'meta' / 'val.txt').is_file():
        return
    images = root / dataset.get('split', 'val')
    folders = sorted(path.name for path in images.iterdir() if path.is_dir()) if images.is_dir() \
        else []  # fmt: skip
    if not folders:
        raise ValueError(
            f"{images} has no class folders; ImageNet's validation images are expected as "
            f'{images}/n01440764/NAME.JPEG, ... or with a list {root}/meta/val.txt.'
        )
    ids = class_ids(folders, config.model.get('data_preprocessor', {}).get('num_classes') or 1000,
                    classes)  # fmt: skip
    lines = [
        f'{name}/{path.name} {ids[name]}'
        for name in folders
        for path in sorted((images / name).iterdir())
        if path.suffix.lower() in _IMAGES
    ]
    if not lines:
        raise ValueError(f'the class folders of {images} hold no images ({", ".join(_IMAGES)}).')
    target = folder / 'images.txt'
    target.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    dataset.split = ''
    dataset.data_root, dataset.data_prefix, dataset.ann_file = '', str(images), str(target)


def list_order(config: Config, dataset_name: str, stated: str | None) -> str | None:
    """How a Kinetics list numbers its classes: the full name of an order of ``labels``.

    The folders of the videos are the classes' names in the usual layout, so the list itself says
    it.

    Args:
        config: Configuration of the test.
        dataset_name: ``'kinetics400'``, ``'kinetics600'`` or another, for which there is no order.
        stated: What the user says.

    Raises:
        ValueError: The list contradicts the statement, or has neither order.
    """
    if not dataset_name.startswith('kinetics'):
        if stated is not None:
            raise ValueError(f'class_order={stated!r}: {dataset_name} has one class order.')
        return None
    if stated is not None and stated not in ORDERS:
        raise ValueError(f'class_order={stated!r} is not known; use one of {ORDERS}.')
    orders = {name: f'{dataset_name}_{name}' for name in ORDERS}
    dataset = config.test_dataloader.dataset
    labels = _folder_labels(Path(dataset.get('data_root') or '') / dataset.ann_file)
    known = {_plain(name) for name in class_names(orders['alphabetical'])}
    labels = {name: label for name, label in labels.items() if name in known}
    if not labels:
        return orders[stated or 'alphabetical']
    fitting = []
    for name, order in orders.items():
        numbers = {_plain(title): index for index, title in enumerate(class_names(order))}
        if all(numbers[title] == label for title, label in labels.items()):
            fitting.append(name)
    if not fitting:
        title, label = next(iter(labels.items()))
        raise ValueError(
            f'{dataset.ann_file} numbers its classes in neither order of {dataset_name} '
            f'({title!r} is {label}); make the list again with the labels of mmaction2 '
            '(alphabetical) or of the authors (official).'
        )
    if stated is not None and stated not in fitting:
        raise ValueError(
            f'class_order={stated!r}, but {dataset.ann_file} numbers its classes in the '
            f'{fitting[0]} order; leave the choice out.'
        )
    return orders[stated or fitting[0]]


def _plain(name: str) -> str:
    return name.replace('_', ' ').strip('"').lower()


def _folder_labels(path: Path) -> dict[str, int]:
    """Label of each folder that the list names, as far as it names folders."""
    if not path.is_file():
        raise ValueError(
            f'{path} is not there: the list of the validation videos ("class/name.mp4 label" in '
            'each line, as in mmaction2); check --data.'
        )
    found: dict[str, int] = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        name, _, label = line.strip().rpartition(' ')
        folders = name.split('/')[:-1]
        if folders and label.lstrip('-').isdigit():
            found.setdefault(_plain(folders[-1]), int(label))
    return found
