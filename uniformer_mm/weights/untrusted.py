# SPDX-License-Identifier: Apache-2.0
"""Unpickling a checkpoint from anyone: tensors, numbers and text, of sizes that the file has.

A pickle is a program for a small machine. This one knows the instructions that ``torch.save``
writes and a table of names; each name stands for a function of this module or of
``numpy_values.py``. Sizes are compared with the bytes that are there before anything is made.
Memory and time are bounded by the size of the file.
"""

from __future__ import annotations

import argparse
import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .numpy_values import NUMPY_VALUES

# Official files have pickles of 0.1 MB; the log of the longest recipe takes some 50 MB of one.
_LARGEST_PICKLE = 256 << 20
# An instruction takes about a microsecond.
_MOST_INSTRUCTIONS = 20_000_000
_MOST_STORAGES = 200_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexFloatStorage': torch.complex64,
    'ComplexDoubleStorage': torch.complex128,
}


class Refused(pickle.UnpicklingError):
    """The file asks for something that a checkpoint of weights does not need.

    Attributes:
        name: The global name that it asked for, empty if it was something else.
    """

    def __init__(self, message: str, name: str = '') -> None:
        super().__init__(message)
        self.name = name


class Discarded:
    """Stands in for log buffers and schedules; keeps nothing."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Bag(argparse.Namespace):
    """Stands in for ``argparse.Namespace``, in which the official scripts save their options."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise Refused('a Namespace with another state than a dict')
        vars(self).update((key, value) for key, value in state.items() if isinstance(key, str))


class _PlainDict(dict):
    """Stands in for mmengine's ``ConfigDict``."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


def _method(owner: object, name: object) -> None:
    """Stands in for ``getattr``, by which log buffers and schedules name their own methods."""
    if owner is not Discarded:
        raise Refused(f'getattr of {name!r}', 'getattr')


def _path(*parts: object) -> str:
    return '/'.join(str(part) for part in parts)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes: as Latin-1 text."""
    if encoding != 'latin1' or not isinstance(text, str):
        raise Refused(f'text encoded as {encoding!r}')
    return text.encode('latin1')


def _size(values: Any) -> tuple[int, ...]:
    numbers = tuple(values)
    if len(numbers) > 64 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
        raise Refused(f'a tensor of size {numbers[:8]!r}')
    return numbers


class _Storage:
    """The bytes of a storage, and how they are to be read."""

    def __init__(self, content: bytearray, dtype: torch.dtype) -> None:
        self.content, self.dtype = content, dtype


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``; no tensor has more elements than its storage."""
    if not isinstance(storage, _Storage):
        raise Refused('a tensor without a storage')
    size, stride = _size(size), _size(stride)
    if type(offset) is not int or offset < 0 or len(size) != len(stride):
        raise Refused('a tensor that is damaged')
    count, held = math.prod(size), len(storage.content) // storage.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > held or (count and last >= held):
        raise Refused(f'a tensor of {count:,} elements in a storage of {held:,}')
    if not count:
        return torch.empty(size, dtype=storage.dtype)
    flat = torch.frombuffer(storage.content, dtype=storage.dtype)
    return flat.as_strided(size, stride, offset)


def _rebuild_parameter(data: Any, *rest: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Refused('a parameter that is no tensor')
    return data


def _list(values: Any = ()) -> list:
    """Stands in for sets: hashing what a file holds can take for ever."""
    return list(values)


def _counter(values: Any = ()) -> dict:
    return dict(values) if isinstance(values, dict) else {}


_NAMES: dict[str, Any] = {
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': _counter,
    'argparse.Namespace': _Bag,
    'pathlib.PosixPath': _path,
    'pathlib._local.PosixPath': _path,
    '_codecs.encode': _encode,
    'torch.Size': _size,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    'mmengine.config.config.ConfigDict': _PlainDict,
    'mmengine.logging.history_buffer.HistoryBuffer': Discarded,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': Discarded,
    **{f'{module}.getattr': _method for module in ('builtins', '__builtin__')},
    **{f'{module}.set': _list for module in ('builtins', '__builtin__')},
    **{f'torch.{name}': dtype for name, dtype in _DTYPES.items()},
    **{str(dtype): dtype for dtype in _DTYPES.values()},
    **{name: value for value, name in NUMPY_VALUES if name.startswith('numpy.')},
}
# What may be called, and what may be given a state.
_CALLABLE = {value for value in _NAMES.values() if callable(value)}
_TAKES_STATE = tuple(
    value
    for value in (*_NAMES.values(), *(value for value, _ in NUMPY_VALUES))
    if isinstance(value, type) and hasattr(value, '__setstate__')
)
_KEYS = (str, int, float, bytes, bool, type(None))

# fmt: off
_OPCODES = (
    'PROTO', 'STOP', 'MARK', 'POP', 'POP_MARK', 'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT',
    'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES',
    'SHORT_BINBYTES', 'BINSTRING', 'SHORT_BINSTRING', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1',
    'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'LIST', 'EMPTY_DICT', 'SETITEM',
    'SETITEMS', 'BINGET', 'LONG_BINGET', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'FRAME', 'GLOBAL',
    'STACK_GLOBAL', 'REDUCE', 'NEWOBJ', 'BUILD', 'BINPERSID',
)
# fmt: on


class _Budget(io.BytesIO):
    """A pickle in memory that is read in a bounded number of steps."""

    steps = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.steps += 1
        if self.steps > 3 * _MOST_INSTRUCTIONS:
            raise Refused(f'more than {_MOST_INSTRUCTIONS:,} instructions')
        return super().read(size)


class _Machine(pickle._Unpickler):
    """Python's own unpickler, in Python, with fewer instructions and this module's names."""

    dispatch = {  # noqa: RUF012 (as in the base class)
        ord(getattr(pickle, name)): pickle._Unpickler.dispatch[ord(getattr(pickle, name))]
        for name in _OPCODES
    }

    def __init__(self, file: BinaryIO, storages: Callable[[tuple], _Storage]) -> None:
        super().__init__(file, encoding='latin1')
        self.storages = storages

    def load(self) -> Any:
        """The object.

        Raises:
            Refused: It needs more than a checkpoint of weights does.
        """
        try:
            return super().load()
        except KeyError as error:
            # The base class looks instructions up.
            key = error.args[0] if error.args else None
            if type(key) is int and key not in self.dispatch:
                raise Refused(f'the instruction {bytes([key & 255])!r}') from None
            raise

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global name."""
        found = _NAMES.get(f'{module}.{name}')
        if found is None:
            raise Refused(f'GLOBAL {module}.{name}', f'{module}.{name}')
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage that the file refers to."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != 'storage':
            raise Refused(f'a reference to {str(pid)[:40]!r}')
        return self.storages(pid)

    def load_reduce(self) -> None:
        """Call a function of the table."""
        function = self.stack[-2]
        if not _is_among(function, _CALLABLE):
            raise Refused('a call of what is no function')
        pickle._Unpickler.load_reduce(self)

    def load_newobj(self) -> None:
        """Make an object of a class of the table, without arguments."""
        kind = self.stack[-2]
        if not (isinstance(kind, type) and _is_among(kind, _CALLABLE)) or self.stack[-1] != ():
            raise Refused('a new object with arguments')
        pickle._Unpickler.load_newobj(self)

    def load_build(self) -> None:
        """Give a state to what takes one."""
        state, made = self.stack[-1], self.stack[-2]
        if type(made) is collections.OrderedDict:
            # What torch's state_dict() carries beside its entries.
            if isinstance(state, dict) and isinstance(state.get('_metadata'), Mapping):
                made._metadata = state['_metadata']
            self.stack.pop()
            return
        if not isinstance(made, _TAKES_STATE):
            raise Refused(f'a state for a {type(made).__name__}')
        pickle._Unpickler.load_build(self)

    def load_setitem(self) -> None:
        """Put an entry into a dict."""
        _check_entry(self.stack[-3], self.stack[-2:])
        pickle._Unpickler.load_setitem(self)

    def load_setitems(self) -> None:
        """Put entries into a dict."""
        # The entries since the last mark; the dict lies below it.
        _check_entry(self.metastack[-1][-1], self.stack)
        pickle._Unpickler.load_setitems(self)

    def load_append(self) -> None:
        """Append to a list."""
        _check_list(self.stack[-2])
        pickle._Unpickler.load_append(self)

    def load_appends(self) -> None:
        """Extend a list."""
        _check_list(self.metastack[-1][-1])
        pickle._Unpickler.load_appends(self)

    dispatch.update(
        {
            ord(getattr(pickle, name)): function
            for name, function in (
                ('REDUCE', load_reduce),
                ('NEWOBJ', load_newobj),
                ('BUILD', load_build),
                ('SETITEM', load_setitem),
                ('SETITEMS', load_setitems),
                ('APPEND', load_append),
                ('APPENDS', load_appends),
            )
        }
    )


def _is_among(value: Any, known: set) -> bool:
    # By identity: what a file makes may have any __eq__ or none that ends.
    return any(value is entry for entry in known)


def _check_entry(target: Any, entries: list) -> None:
    if not isinstance(target, dict):
        raise Refused(f'an entry for a {type(target).__name__}')
    if not all(isinstance(key, _KEYS) for key in entries[::2]):
        # A tuple of tuples of tuples can take years to hash.
        raise Refused('a dict with keys that are neither text nor numbers')


def _check_list(target: Any) -> None:
    if type(target) is not list:
        raise Refused(f'an element for a {type(target).__name__}')


def unpickle(path: Path) -> Any:
    """The content of a file that ``torch.save`` wrote, in its new or its old format.

    Raises:
        Refused: It asks for more than weights need, or declares more than it holds.
        OSError, ValueError, EOFError and what else reading a damaged file raises.
    """
    with open(path, 'rb') as file:
        if zipfile.is_zipfile(file):
            file.seek(0)
            return _from_zip(file)
        file.seek(0)
        if file.read(2) == b'PK':
            raise EOFError('the end of the zip archive is missing')
        file.seek(0)
        return _from_stream(file, path.stat().st_size)


def _from_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as parts:
        entries = parts.infolist()
        size = file.seek(0, io.SEEK_END)
        if len(entries) > _MOST_STORAGES:
            raise Refused(f'{len(entries):,} parts')
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Refused('compressed parts, which torch does not write')
        declared = sum(entry.file_size for entry in entries)
        if declared > size:
            raise Refused(f'parts of {declared:,} bytes in a file of {size:,}')
        names = [entry.filename for entry in entries if entry.filename.endswith('/data.pkl')]
        if len(names) != 1:
            raise ValueError('it has no data.pkl')
        prefix = names[0].removesuffix('data.pkl')
        if prefix + 'constants.pkl' in parts.NameToInfo:
            raise Refused('a TorchScript program', 'TorchScript')
        if (
            prefix + 'byteorder' in parts.NameToInfo
            and parts.read(prefix + 'byteorder') != b'little'
        ):
            raise Refused('numbers in big-endian order')
        if parts.getinfo(names[0]).file_size > _LARGEST_PICKLE:
            raise Refused(f'a pickle of more than {_LARGEST_PICKLE:,} bytes')
        known: dict[str, bytearray] = {}

        def storage(pid: tuple) -> _Storage:
            dtype, key, _, count = pid[1:5]
            _check_storage(dtype, key, count)
            if key not in known:
                known[key] = bytearray(parts.read(f'{prefix}data/{key}'))
            return _sized(known[key], dtype, count)

        return _Machine(_Budget(parts.read(names[0])), storage).load()


def _check_storage(dtype: Any, key: Any, count: Any) -> None:
    if not isinstance(dtype, torch.dtype):
        raise Refused('a storage of an unknown kind')
    if not isinstance(key, str) or not key.isdigit() or type(count) is not int or count < 0:
        raise Refused('a storage that is damaged')


def _sized(content: bytearray, dtype: torch.dtype, count: int) -> _Storage:
    if count * dtype.itemsize != len(content):
        raise Refused(f'a storage of {count:,} elements in {len(content):,} bytes')
    return _Storage(content, dtype)


def _from_stream(file: BinaryIO, size: int) -> Any:
    """The format before torch 1.6: pickles one after the other, then the storages.

    A storage's bytes come after the tensors that need them, so that the pickle is read twice.
    """
    limit = min(size, _LARGEST_PICKLE)
    content = _Budget(file.read(limit))

    def none(pid: tuple) -> _Storage:
        raise Refused('a storage in the header')

    header = [_Machine(content, none).load() for _ in range(2)]
    if header != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
        raise ValueError('it is no file of torch.save')
    _Machine(content, none).load()
    begin = content.tell()
    declared: dict[str, tuple[torch.dtype, int]] = {}

    def note(pid: tuple) -> _Storage:
        dtype, key, _, count = pid[1:5]
        _check_storage(dtype, key, count)
        if len(pid) > 5 and pid[5] is not None:
            raise Refused('a view of a storage, as torch 0.3 wrote')
        declared[key] = dtype, count
        total = sum(number * kind.itemsize for kind, number in declared.values())
        if total > size:
            raise EOFError(f'storages of {total:,} bytes in a file of {size:,}')
        if len(declared) > _MOST_STORAGES:
            raise Refused(f'{len(declared):,} storages')
        # Shapes are checked the second time; nothing is taken from this pass.
        return _Storage(bytearray(), dtype)

    _Scout(content, note).load()
    keys = _Machine(content, none).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(declared):
        raise Refused('other storages than its tensors need')
    file.seek(content.tell())
    storages = {}
    for key in keys:
        dtype, count = declared[key]
        (written,) = struct.unpack('<q', _exactly(file, 8))
        if written != count:
            raise Refused(f'a storage of {count:,} elements that declares {written:,}')
        storages[key] = _Storage(bytearray(_exactly(file, count * dtype.itemsize)), dtype)
    content.seek(begin)
    return _Machine(content, lambda pid: storages[pid[2]]).load()


class _Scout(_Machine):
    """Looks for storages; tensors are made when their bytes are known."""

    dispatch = dict(_Machine.dispatch)  # noqa: RUF012 (as in the base class)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global name; tensors are left out."""
        found = super().find_class(module, name)
        return Discarded if found in (_rebuild_tensor, _rebuild_parameter) else found


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError('it ends in the middle of a storage')
    return content
