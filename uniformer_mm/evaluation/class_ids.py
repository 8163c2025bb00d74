# SPDX-License-Identifier: Apache-2.0
"""Class ids of folders that hold the images of one class each."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

_EXPECTED = (
    'a JSON object of folder name to class id, or a text of all folder names in the order of ids'
)


def class_ids(folders: list[str], total: int, classes: str | PathLike | None) -> dict[str, int]:
    """Class id of each subfolder: its rank among all, or as the classes file says.

    Args:
        folders: Names of the subfolders that are there.
        total: Classes of the model.
        classes: A JSON object of subfolder name to class id, or a text file of all subfolder names
            in the order of ids; None where all are there.

    Raises:
        ValueError: Folders are missing and nothing says which, the file cannot be read, or a folder
            has no id below ``total``.
    """
    if classes is None:
        if len(folders) != total:
            raise ValueError(
                f'data has {len(folders)} class folders, the row {total} classes; say which they '
                'are with classes=FILE (a JSON object of folder name to class id).'
            )
        return {name: index for index, name in enumerate(sorted(folders))}
    named = f'classes={str(classes)!r}'
    ids = _read_class_ids(Path(classes), named)
    missing = [name for name in folders if name not in ids]
    if missing:
        raise ValueError(f'{named} gives no class id for {missing[:3]}; it has to be {_EXPECTED}.')
    for name in folders:
        # type(): True and False are ints, too.
        if type(ids[name]) is not int or not 0 <= ids[name] < total:
            raise ValueError(
                f'{named} gives {name!r} the class id {ids[name]!r}, not a whole number from 0 to '
                f'{total - 1}; correct it.'
            )
    return ids


def _read_class_ids(path: Path, named: str) -> dict:
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise ValueError(f'{named}: no such file; it has to be {_EXPECTED}.') from None
    except UnicodeDecodeError:
        raise ValueError(f'{named} is no text in UTF-8; it has to be {_EXPECTED}.') from None
    except OSError as error:
        raise ValueError(
            f'{named} cannot be read ({error.strerror}); it has to be {_EXPECTED}.'
        ) from None
    if not text.lstrip().startswith('{'):
        return {name: index for index, name in enumerate(text.split())}
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{named} is no JSON object ({error}); it has to be {_EXPECTED}.'
        ) from None
