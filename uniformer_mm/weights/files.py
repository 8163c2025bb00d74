# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint file: tensors and what the file says about itself, never code.

Pickles are read by ``untrusted.py``, in which training scripts' harmless bookkeeping (the official
one stores an ``argparse.Namespace``, mmengine its log buffers) has stand-ins. Anything else is
refused.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models.state_dict import META_KEY
from .untrusted import Refused, unpickle

# Order of the official loaders; the averaged copies are read only on request.
CONTAINERS = ('state_dict', 'model', 'model_state')
EMA_CONTAINERS = ('model_ema', 'state_dict_ema')

_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The largest official network has 900 entries; detectors with it some 1,300.
_MOST_KEYS = 100_000
_LONGEST_KEY = 500
_DEEPEST = 40


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        path: The file.
        state: Tensors by the file's own keys.
        container: Top-level key they lay under, ``'flat'`` or ``'safetensors'``.
        meta: The file's ``meta`` entry (mmengine's and ours).
        extras: Other top-level entries that say where the file comes from: ``args``, ``arch``,
            ``cfg``, ``epoch``.
        noted: What the backbone noted when it was saved (see ``models/state_dict.py``).
        sha256: Digest of the file, hexadecimal.
        md5: Digest of the file, hexadecimal.
    """

    path: Path
    state: dict[str, Tensor]
    container: str
    sha256: str
    md5: str
    meta: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)
    noted: dict = field(default_factory=dict)

    @property
    def our_meta(self) -> dict:
        """What this package wrote about the weights: arch, head_dim, class order, ...

        Converted files say it in ``meta``, trained ones in the state dict's ``_metadata``.
        """
        ours = self.meta.get(META_KEY)
        return dict(ours) if isinstance(ours, Mapping) else dict(self.noted)


def read_checkpoint(
    path: str | PathLike, *, ema: bool = False, digests: dict[str, str] | None = None
) -> Checkpoint:
    """Read a ``.pth`` or ``.safetensors`` file.

    Args:
        path: File to read.
        ema: Take the averaged weights (``model_ema`` or ``state_dict_ema``) instead of the raw.
        digests: The file's digests, if they were computed already.

    Returns:
        The tensors, on the CPU, and what is known about them.

    Raises:
        CheckpointError: The file is missing, unreadable, empty, cut off, a web page, holds code,
            or holds no tensors.
    """
    path = Path(path)
    head = _first_bytes(path)
    if _is_safetensors(head):
        if ema:
            raise CheckpointError(f'{path}: ema=True, but a safetensors file holds one set only.')
        return _read_safetensors(path, digests)
    content = _unpickle(path, head)
    container, state = _unwrap(path, content, ema)
    meta = content.get('meta')
    holder = content if container == 'flat' else content[container]
    return Checkpoint(
        path=path,
        state=state,
        container=container,
        meta=_plain(path, meta) if isinstance(meta, Mapping) else {},
        extras=_plain(
            path, {k: content[k] for k in ('args', 'arch', 'cfg', 'epoch') if k in content}
        ),
        noted=_plain(path, _noted(getattr(holder, '_metadata', {}))),
        **(digests or file_digests(path)),
    )


def file_digests(path: str | PathLike) -> dict[str, str]:
    """``sha256`` and ``md5`` of a file (the authors' files are known by md5), in one pass.

    Raises:
        CheckpointError: By its first bytes the file is no checkpoint; it is not read any further.
    """
    _first_bytes(Path(path))
    digests = {'sha256': hashlib.sha256(), 'md5': hashlib.md5(usedforsecurity=False)}
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 22):
            for digest in digests.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def sniff_page(head: bytes) -> str | None:
    """What a file that begins with ``head`` is, if it is no checkpoint: words, or None."""
    start = head.lstrip()[:64].lower()
    if start.startswith((b'<!doctype', b'<html', b'<head', b'<?xml')):
        return 'an HTML page (Google Drive sends one when its download quota is spent)'
    if start.startswith(b'version https://git-lfs'):
        return 'a Git LFS pointer, not the file it stands for'
    return None


def _noted(metadata: Mapping) -> dict:
    if not isinstance(metadata, Mapping):
        return {}
    entries = [entry for entry in metadata.values() if isinstance(entry, Mapping)]
    notes = [entry[META_KEY] for entry in entries if META_KEY in entry]
    return dict(notes[0]) if len(notes) == 1 and isinstance(notes[0], Mapping) else {}


def _first_bytes(path: Path) -> bytes:
    """The beginning of a file that may be a checkpoint; nothing else is read any further."""
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise CheckpointError(f'{path} is a folder; name the checkpoint file in it.')
        if not stat.S_ISREG(kind):
            raise CheckpointError(
                f'{path} is a device, pipe or socket, not a file; name the checkpoint file.'
            )
        with open(path, 'rb') as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(
            f'{path}: no such file; give a path or a name such as uniformer://small_in1k '
            '(all names: uniformer-mm zoo).'
        ) from None
    except PermissionError:
        raise CheckpointError(
            f'{path}: no permission to read it; change its mode (chmod +r) or copy it.'
        ) from None
    # Links in a circle, names that are too long, a NUL byte.
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        name = shown(str(path))
        name = name if len(name) <= 200 else f'{name[:200]}...'
        reason = getattr(error, 'strerror', None) or error
        raise CheckpointError(f'{name} cannot be opened ({reason}); name another file.') from None
    if not head:
        raise CheckpointError(f'{path} is empty (0 bytes); delete it and fetch it again.')
    if page := sniff_page(head):
        raise CheckpointError(
            f'{path} is {page}; delete it and fetch the checkpoint again, perhaps from another '
            'mirror (uniformer-mm zoo show ROW lists them).'
        )
    if not (_is_safetensors(head) or _may_be_checkpoint(head)):
        raise _no_checkpoint(path, head)
    return head


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 32


def _read_safetensors(path: Path, digests: dict[str, str] | None) -> Checkpoint:
    if importlib.util.find_spec('safetensors') is None:
        raise CheckpointError(f'{path} needs the safetensors package: pip install safetensors.')
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            written = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f'{path} is damaged ({error}); fetch it again.') from None
    meta = {name: value for name, value in written.items() if name != 'format'}
    if META_KEY in meta:
        try:
            meta[META_KEY] = json.loads(meta[META_KEY])
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f'{path}: its metadata {META_KEY!r} is no readable JSON ({type(error).__name__}); '
                'convert it again from its source.'
            ) from None
    meta = _plain(path, meta)
    checked = _tensors(path, state)
    return Checkpoint(path, checked, 'safetensors', meta=meta, **(digests or file_digests(path)))


def _unpickle(path: Path, head: bytes) -> Mapping:
    try:
        content = unpickle(path)
    except Refused as error:
        raise _refusal(path, error) from None
    # The instructions of a damaged file fail in every way that Python objects can.
    except Exception as error:
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(
            f'{path} is cut off or damaged ({path.stat().st_size:,} bytes; {shown(reason)}); '
            'delete it and fetch it again.'
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a dict of tensors; save the state dict.'
        )
    return content


def _may_be_checkpoint(head: bytes) -> bool:
    # How a zip file and a pickle begin.
    return head.startswith((b'PK', b'\x80'))


def _no_checkpoint(path: Path, head: bytes) -> CheckpointError:
    begins = head[:16].decode('utf-8', 'backslashreplace')
    return CheckpointError(
        f'{path} is no checkpoint (it begins with {begins!r}); name another file or fetch it again.'
    )


def _refusal(path: Path, error: Refused) -> CheckpointError:
    if error.name:
        return CheckpointError(
            f'{path} holds code or objects ({shown(error.name)}), not tensors alone; it was '
            'refused and nothing in it was run. Ask its source for a plain state dict or a '
            'safetensors file.'
        )
    return CheckpointError(
        f'{path} was refused: it holds {shown(str(error))}, which no checkpoint of weights needs; '
        'fetch it again, or ask its source for a safetensors file.'
    )


def _unwrap(path: Path, content: Mapping, ema: bool) -> tuple[str, dict[str, Tensor]]:
    wanted = EMA_CONTAINERS if ema else CONTAINERS
    for key in wanted:
        if isinstance(content.get(key), Mapping):
            return key, _tensors(path, content[key])
    if ema:
        raise CheckpointError(
            f'{path}: ema=True, but it holds none of {EMA_CONTAINERS}; its top-level keys are '
            f'{list(content)[:8]}.'
        )
    averaged = [key for key in EMA_CONTAINERS if key in content]
    if averaged:
        raise CheckpointError(
            f'{path} holds only averaged weights ({averaged[0]}); pass ema=True to use them, as in '
            'uniformer_mm.weights.load_weights(model, file, ema=True), or make a file of '
            'them alone: uniformer-mm convert FILE --to official --ema.'
        )
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f'{path} holds no weights under {CONTAINERS} or at its top level; its top-level keys '
            f'are {list(content)[:8]}.'
        )
    return 'flat', _tensors(path, content)


def _tensors(path: Path, state: Mapping) -> dict[str, Tensor]:
    if not state:
        raise CheckpointError(f'{path} holds an empty state dict; nothing could be loaded.')
    if len(state) > _MOST_KEYS:
        raise CheckpointError(
            f'{path} holds {len(state):,} entries, expected at most {_MOST_KEYS:,}; it is no '
            'state dict.'
        )
    for key, value in state.items():
        _check_key(path, key)
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f'{path}: entry {key!r} of the state dict is a {type(value).__name__}, not a '
                'tensor; save the state dict alone.'
            )
        if value.layout is not torch.strided or value.device.type != 'cpu':
            raise CheckpointError(
                f'{path}: tensor {key!r} is {value.layout} on {value.device}, expected a dense '
                'tensor with its values; save model.state_dict() alone.'
            )
        if value.dtype not in _WEIGHT_DTYPES and not _is_counter(key, value):
            raise CheckpointError(
                f'{path}: tensor {key!r} is of {value.dtype}, expected real floating-point numbers '
                'of 16, 32 or 64 bits; save the weights before they are quantised or converted.'
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f'{path}: tensor {key!r} has NaN or infinite values; its training diverged.'
            )
    return dict(state)


def _check_key(path: Path, key: Any) -> None:
    if not isinstance(key, str):
        raise CheckpointError(
            f'{path}: key {key!r} of the state dict is of type {type(key).__name__}, not a '
            'name; save model.state_dict() alone.'
        )
    if len(key) > _LONGEST_KEY or not key.isprintable():
        raise CheckpointError(
            f'{path}: a key of the state dict begins with {key[:40]!r} and has {len(key):,} '
            f'characters, expected at most {_LONGEST_KEY} that can be printed; save '
            'model.state_dict() alone.'
        )


def _is_counter(key: str, value: Tensor) -> bool:
    """Whether whole numbers belong there: BatchNorm's counter, indices of positions."""
    return value.dtype in (torch.int64, torch.int32) and key.endswith(
        ('num_batches_tracked', '_index', '_ids')
    )


def shown(text: str) -> str:
    """Text from a file as it may be printed: control characters as escapes, not obeyed."""
    return ''.join(
        character if character.isprintable() or character == '\n' else ascii(character)[1:-1]
        for character in text
    )


def _plain(path: Path, value: Any, depth: int = 0) -> Any:
    """What a file says beside its tensors, with escapes shown and of a depth that can be walked."""
    if depth > _DEEPEST:
        raise CheckpointError(
            f'{path} nests what it says about itself more than {_DEEPEST} deep; ask its source '
            'for a plain state dict.'
        )
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {
            shown(key) if isinstance(key, str) else key: _plain(path, entry, depth + 1)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_plain(path, entry, depth + 1) for entry in value)
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**_plain(path, vars(value), depth + 1))
    return value
