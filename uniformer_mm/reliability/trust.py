# SPDX-License-Identifier: Apache-2.0
"""What a runner takes from a checkpoint beside tensors, checked before it acts on it.

mmengine executes ``meta['config']`` as a program, deletes the file that ``best_ckpt`` names and
formats ``keep_ckpt_ids`` into names of files that it deletes. Here text stays text, and a path is
the name of a file in the folder that this run writes to.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

# Entries of the message hub's runtime_info that mmengine's checkpoint hook uses as paths.
_PATHS = re.compile(r'(best_ckpt|last_ckpt)(_.*)?')
_LONGEST_NAME = 255


def distrust(checkpoint: dict, folder: str | None) -> list[str]:
    """Take from a loaded checkpoint, in place, what could make the runner do something else.

    Args:
        checkpoint: As read.
        folder: Where this run writes checkpoints, None where it writes none.

    Returns:
        One sentence per entry that was changed and could matter.

    Raises:
        ValueError: An entry that the runner counts with is of another kind.
    """
    meta = checkpoint.get('meta')
    if meta is None:
        return []
    if not isinstance(meta, dict):
        raise ValueError(
            f'the checkpoint\'s "meta" is a {type(meta).__name__}, expected a dict; take another '
            'checkpoint.'
        )
    said = []
    # mmengine has not written it since 2022; a text that it would execute.
    if meta.pop('config', None) is not None:
        said.append('The checkpoint\'s meta["config"] is a program; it is not run.')
    for name in ('epoch', 'iter'):
        if name in meta:
            meta[name] = _count(f'meta[{name!r}]', meta[name])
    if meta.get('seed') is not None:
        meta['seed'] = _count("meta['seed']", meta['seed'])
    hub = checkpoint.get('message_hub')
    if isinstance(hub, dict) and isinstance(hub.get('runtime_info'), dict):
        said += _distrust_info(hub['runtime_info'], hub.get('resumed_keys'), folder)
    return said


def _distrust_info(info: dict, resumed: Any, folder: str | None) -> list[str]:
    said = []
    for key in [key for key in info if isinstance(key, str) and _PATHS.fullmatch(key)]:
        value = info[key]
        name = plain_name(value)
        if name is not None and folder is not None:
            inside = f'{folder.rstrip("/")}/{name}'
            if inside != value:
                said.append(f'{key} of the checkpoint is {value!r}; {inside} is used instead.')
            info[key] = inside
            continue
        if value is not None:
            said.append(f'{key} of the checkpoint is {value!r}, no name of a checkpoint: ignored.')
        _forget(key, info, resumed)
    kept = info.get('keep_ckpt_ids')
    if kept is not None and not (isinstance(kept, list) and all(map(_is_count, kept))):
        said.append(f'keep_ckpt_ids of the checkpoint is {kept!r}, no list of numbers: ignored.')
        _forget('keep_ckpt_ids', info, resumed)
    return said


def _forget(key: str, info: dict, resumed: Any) -> None:
    del info[key]
    if isinstance(resumed, dict):
        resumed.pop(key, None)


def plain_name(path: Any) -> str | None:
    """The last part of a path if it can be a checkpoint's name, else None."""
    if not isinstance(path, str) or '\0' in path:
        return None
    name = PurePath(path).name
    usable = name.isprintable() and 0 < len(name) <= _LONGEST_NAME and not name.startswith('.')
    return name if usable else None


def _count(what: str, value: Any) -> int:
    if not _is_count(value):
        raise ValueError(
            f"the checkpoint's {what} is {value!r}, expected a number from 0 on; it is no "
            'checkpoint of a runner.'
        )
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
