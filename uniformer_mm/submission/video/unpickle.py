# SPDX-License-Identifier: Apache-2.0
"""Reading mmengine's ``DumpResults`` files without running what else a pickle can hold.

A pickle is a program. mmaction2's results need a handful of names, those that build tensors; every
other name is refused before it is looked up. NumPy's are not among them: crafted arrays can make
NumPy follow foreign pointers.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable
from os import PathLike

import torch

from ..reading import read_bytes


def _load_storage(content: bytes) -> object:
    """What ``torch.storage._load_from_bytes`` does, without unpickling anything but a storage."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2, which mmengine writes, spells bytes: as Latin-1 text."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it encodes text as {encoding!r}')
    return text.encode('latin1')


# Every global name that lists of dictionaries of tensors are pickled with.
_ALLOWED: dict[tuple[str, str], Callable] = {
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch.storage', '_load_from_bytes'): _load_storage,
    ('torch', 'Size'): torch.Size,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        """The object of an allowed name."""
        found = _ALLOWED.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f'it names {module}.{name}')
        return found

    def persistent_load(self, pid: object) -> object:
        """No file of ``DumpResults`` refers to anything outside."""
        raise pickle.UnpicklingError('it refers to an object outside the file')


def read_results(path: str | PathLike) -> list[dict]:
    """The data samples of a file of ``DumpResults``, as dictionaries.

    Raises:
        ValueError: No pickle, one that holds code, or one that holds something else.
    """
    try:
        content = _Unpickler(io.BytesIO(read_bytes(path))).load()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{path}: not read, {error}. A pickle can run any program; only tensors, '
            'numbers and text in lists and dictionaries are accepted, which is all that mmaction2 '
            'writes. Save NumPy arrays as .npz.'
        ) from error
    # The opcodes of a damaged file fail in every way that Python objects can.
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f'{path}: not a readable pickle ({type(error).__name__}: {error}).'
        ) from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(
            f'{path}: holds a {type(content).__name__}, expected the list of data samples that '
            'DumpResults writes.'
        )
    return content
