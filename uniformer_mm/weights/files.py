# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint file: tensors and what the file says about itself, never code.

``torch.load`` always runs with ``weights_only=True``. Training scripts store harmless bookkeeping
beside the tensors (the official one an ``argparse.Namespace``, mmengine its log buffers); those
types alone are named safe, the log buffers as empty stand-ins. Anything else is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import pathlib
import pickle
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from torch import Tensor

from ..errors import CheckpointError
from ..models.state_dict import META_KEY

# Order of the official loaders; the averaged copies are read only on request.
CONTAINERS = ('state_dict', 'model', 'model_state')
EMA_CONTAINERS = ('model_ema', 'state_dict_ema')


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
        return _read_safetensors(path, digests or file_digests(path))
    content = _unpickle(path, head)
    container, state = _unwrap(path, content, ema)
    meta = content.get('meta')
    holder = content if container == 'flat' else content[container]
    return Checkpoint(
        path=path,
        state=state,
        container=container,
        meta=dict(meta) if isinstance(meta, Mapping) else {},
        extras={k: content[k] for k in ('args', 'arch', 'cfg', 'epoch') if k in content},
        noted=_noted(getattr(holder, '_metadata', {})),
        **(digests or file_digests(path)),
    )


def file_digests(path: str | PathLike) -> dict[str, str]:
    """``sha256`` and ``md5`` of a file (the authors' files are known by md5), in one pass."""
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
    notes = [entry[META_KEY] for entry in metadata.values() if META_KEY in entry]
    return dict(notes[0]) if len(notes) == 1 else {}


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(
            f'{path}: no such file; give a path or a name such as uniformer://small_in1k '
            '(all names: uniformer-mm zoo).'
        ) from None
    except IsADirectoryError:
        raise CheckpointError(f'{path} is a folder; name the checkpoint file in it.') from None
    except PermissionError:
        raise CheckpointError(
            f'{path}: no permission to read it; change its mode (chmod +r) or copy it.'
        ) from None
    if not head:
        raise CheckpointError(f'{path} is empty (0 bytes); delete it and fetch it again.')
    if page := sniff_page(head):
        raise CheckpointError(
            f'{path} is {page}; delete it and fetch the checkpoint again, perhaps from another '
            'mirror (uniformer-mm zoo show ROW lists them).'
        )
    return head


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 32


def _read_safetensors(path: Path, digests: dict[str, str]) -> Checkpoint:
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
        meta[META_KEY] = json.loads(meta[META_KEY])
    return Checkpoint(path, _tensors(path, state), 'safetensors', meta=meta, **digests)


class _Discarded:
    """Stands in for a log buffer while unpickling; keeps nothing."""

    def __setstate__(self, state: object) -> None: ...


def _discard_method(owner: object, name: str) -> None:
    """Stands in for ``getattr``, by which log buffers pickle their own methods; no others may."""
    if owner is not _Discarded:
        raise pickle.UnpicklingError(f'GLOBAL getattr of {name}')


def _bookkeeping_types() -> list[tuple[Callable, str]]:
    core = importlib.import_module(
        'numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray'
    )
    plain = [
        argparse.Namespace,
        pathlib.PosixPath,
        ConfigDict,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in '?bBhHiIlLqQefdSU'},
    ]
    return [
        *((kind, f'{kind.__module__}.{kind.__qualname__}') for kind in plain),
        *((core.scalar, f'numpy.{name}.multiarray.scalar') for name in ('core', '_core')),
        *(
            (core._reconstruct, f'numpy.{name}.multiarray._reconstruct')
            for name in ('core', '_core')
        ),
        (_Discarded, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_discard_method, 'builtins.getattr'),
    ]


def _allow_bookkeeping() -> AbstractContextManager:
    # Before torch 2.6 types cannot be named safe for one call under another name.
    if torch.__version__ < torch.torch_version.TorchVersion('2.6'):
        return nullcontext()
    # What others have named safe for the whole process stays theirs: leaving the context would
    # take it back.
    taken = {
        entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'
        for entry in torch.serialization.get_safe_globals()
    }
    return torch.serialization.safe_globals(
        [(kind, name) for kind, name in _bookkeeping_types() if name not in taken]
    )


def _unpickle(path: Path, head: bytes) -> Mapping:
    try:
        with _allow_bookkeeping():
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error), head) from None
    except (RuntimeError, EOFError, KeyError, OSError, ValueError, IndexError) as error:
        if isinstance(error, ValueError) and 'the checkpoint asks for' in str(error):
            # Said by the repaired mmengine (uniformer-mm doctor), which guards getattr itself.
            raise _refusal(path, 'GLOBAL getattr', head) from None
        if not _may_be_checkpoint(head):
            raise _no_checkpoint(path, head) from None
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(
            f'{path} is cut off or damaged ({path.stat().st_size:,} bytes; torch says: {reason}); '
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


def _refusal(path: Path, message: str, head: bytes) -> CheckpointError:
    found = re.search(r'GLOBAL ([\w.]+)', message)
    if found is None and not _may_be_checkpoint(head):
        return _no_checkpoint(path, head)
    if found is None or 'truncated' in message:
        reason = ' '.join(message.split())[-120:]
        return CheckpointError(f'{path} is cut off or no checkpoint ({reason}); fetch it again.')
    name = found[1]
    module = name.split('.')[0]
    if module in ('argparse', 'numpy', 'mmengine', 'pathlib') or name == 'builtins.getattr':
        return CheckpointError(
            f'{path} stores {name} beside its tensors, which torch {torch.__version__} cannot be '
            'told to pass; rewrite it once under torch >= 2.6: '
            f'uniformer-mm convert {path.name} --to safetensors.'
        )
    return CheckpointError(
        f'{path} holds code or objects ({name}), not tensors alone; it was refused and nothing in '
        'it was run. Ask its source for a plain state dict or a safetensors file.'
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
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f'{path}: key {key!r} of the state dict is of type {type(key).__name__}, not a '
                'name; save model.state_dict() alone.'
            )
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f'{path}: entry {key!r} of the state dict is a {type(value).__name__}, not a '
                'tensor; save the state dict alone.'
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f'{path}: tensor {key!r} has NaN or infinite values; its training diverged.'
            )
    return dict(state)
