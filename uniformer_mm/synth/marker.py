# SPDX-License-Identifier: Apache-2.0
"""The marker file of a synthetic world: which folders are ours, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAKER = 'uniformer-mm make-data'

MARKER = '.uniformer_mm_synthetic.json'
"""Holds version, seed, size, sample counts by task, the annotation and list files with a sha256
over their names and contents, and the number of files in each folder."""


def read_marker(root: Path) -> dict[str, Any] | None:
    """The marker of a world that we made; None if the folder is empty or absent."""
    if not os.path.lexists(root):
        return None
    if not root.is_dir():
        raise ValueError(f'{root} is a file; give a folder for the synthetic world')
    if os.path.ismount(root):
        raise ValueError(f'{root} is a mount point and cannot be renamed; give a folder inside it')
    if not any(root.iterdir()):
        return None
    try:
        marker = json.loads((root / MARKER).read_text())
    except FileNotFoundError:
        raise ValueError(
            f'{root} is not empty and was not made by make-data (it has no {MARKER}), so it is '
            f'left alone; give an empty or new folder'
        ) from None
    except ValueError:
        marker = None
    if not isinstance(marker, dict) or marker.get('maker') != MAKER:
        raise ValueError(
            f'{root / MARKER} was not written by {MAKER} or is damaged, so {root} is left alone; '
            f'remove that folder or give another one'
        )
    return marker


def check_present(
    root: Path, marker: dict[str, Any] | None, parameters: dict[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """The marker if its world is to be kept, None if there is none or it is to be replaced."""
    if marker is None:
        return None
    if overwrite:
        _refuse_foreign_files(root, marker)
        return None
    differing = [key for key, value in parameters.items() if marker.get(key) != value]
    if differing:
        found = ', '.join(f'{key} {marker.get(key)}' for key in differing)
        asked = ', '.join(f'{key} {parameters[key]}' for key in differing)
        raise ValueError(
            f'{root} holds a synthetic world of {found}, not {asked}; give another folder, or '
            f'replace it with --overwrite (overwrite=True)'
        )
    trouble = _find_damage(root, marker)
    if trouble:
        raise ValueError(
            f'the synthetic world in {root} is damaged: {trouble}; re-create it with --overwrite '
            f'(overwrite=True)'
        )
    return marker


def _find_damage(root: Path, marker: dict[str, Any]) -> str | None:
    """What is missing or changed in a world, or None."""
    absent = [name for name in marker['lists'] if not (root / name).is_file()]
    if absent:
        return f'{absent[0]} is missing'
    if list_digest(root, marker['lists']) != marker['sha256']:
        return 'an annotation or list file was changed'
    lacking = Counter(marker['files']) - count_files(root)
    if lacking:
        folder, number = min(lacking.items())
        return f'{folder} lacks {number} of its {marker["files"][folder]} files'
    return None


def _refuse_foreign_files(root: Path, marker: dict[str, Any]) -> None:
    foreign = count_files(root) - Counter(marker['files'])
    if foreign:
        folder, number = min(foreign.items())
        raise ValueError(
            f'{root / folder} holds {number} files more than make-data wrote, which overwriting '
            f'would delete; move them away or give another folder'
        )


def count_files(root: Path) -> Counter[str]:
    """Number of files, the marker aside, in each folder below ``root``."""
    return Counter(
        path.parent.relative_to(root).as_posix()
        for path in root.rglob('*')
        if not path.is_dir() and path.name != MARKER
    )


def list_digest(root: Path, names: Sequence[str]) -> str:
    """sha256 over the names and contents of the annotation and list files."""
    digest = hashlib.sha256()
    for name in names:
        content = (root / name).read_bytes()
        digest.update(f'{name}\0{len(content)}\0'.encode())
        digest.update(content)
    return digest.hexdigest()
