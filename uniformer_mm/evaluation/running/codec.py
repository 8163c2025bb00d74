# SPDX-License-Identifier: Apache-2.0
"""Results of one sample as bytes and back, exactly, without running anything from the file.

A JSON tree (floats keep all their digits) with tags for what JSON lacks, then the raw bytes of
all arrays. Pickle would do the same and would execute what it reads.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TAG = '$'
_LENGTH = struct.Struct('<I')


def encode(value: Any) -> bytes:
    """Pack a tree of containers, scalars, arrays and tensors.

    Args:
        value: Dicts, lists, tuples, strings, bytes, numbers, None, NumPy arrays and scalars, and
            tensors (brought to the CPU).

    Returns:
        The bytes, compressed.

    Raises:
        ValueError: A value of another type.
    """
    blobs: list[bytes] = []
    header = json.dumps(_write(value, blobs), separators=(',', ':')).encode()
    return zlib.compress(b''.join([_LENGTH.pack(len(header)), header, *blobs]), 1)


def decode(data: bytes) -> Any:
    """Undo :func:`encode`; arrays are writable copies."""
    raw = zlib.decompress(data)
    (length,) = _LENGTH.unpack_from(raw)
    start = _LENGTH.size + length
    return _read(json.loads(raw[_LENGTH.size : start]), memoryview(raw)[start:])


def _place(data: bytes, blobs: list[bytes]) -> dict[str, int]:
    offset = sum(map(len, blobs))
    blobs.append(data)
    return {'o': offset, 'n': len(data)}


def _write(value: Any, blobs: list[bytes]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_write(item, blobs) for item in value]
    if isinstance(value, tuple):
        return {_TAG: 'tuple', 'v': [_write(item, blobs) for item in value]}
    if isinstance(value, dict):
        pairs = [[_write(key, blobs), _write(item, blobs)] for key, item in value.items()]
        return {_TAG: 'dict', 'v': pairs}
    if isinstance(value, bytes):
        return {_TAG: 'bytes', **_place(value, blobs)}
    kind = 'array'
    if isinstance(value, Tensor):
        kind, value = 'tensor', value.detach().cpu().numpy()
    elif isinstance(value, np.generic):
        kind, value = 'scalar', np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise ValueError(f'a {type(value).__name__} cannot be stored as a result of a sample.')
    place = _place(value.tobytes(), blobs)
    return {_TAG: kind, 'd': value.dtype.str, 's': value.shape, **place}


def _read(node: Any, blob: memoryview) -> Any:
    if isinstance(node, list):
        return [_read(item, blob) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node[_TAG]
    if kind == 'tuple':
        return tuple(_read(item, blob) for item in node['v'])
    if kind == 'dict':
        return {_read(key, blob): _read(item, blob) for key, item in node['v']}
    data = bytes(blob[node['o'] : node['o'] + node['n']])
    if kind == 'bytes':
        return data
    array = np.frombuffer(data, np.dtype(node['d'])).reshape(node['s']).copy()
    if kind == 'tensor':
        return torch.from_numpy(array)
    return array[()] if kind == 'scalar' else array
