# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were made to do harm, or damaged at random: one sentence each, within bounds."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pathlib
import pickle
import random
import resource
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from uniformer_mm.weights import CheckpointError
from uniformer_mm.weights.files import file_digests, read_checkpoint
from uniformer_mm.weights.untrusted import Refused, _Machine, unpickle

WEIGHTS = {'patch_embed1.proj.weight': torch.randn(8, 3, 4, 4)}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refuse(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert '\n' not in text and text.isprintable() and len(text) < 1000


@pytest.mark.parametrize('zipped', [True, False])
def test_what_training_scripts_write_is_read(tmp_path, zipped):
    """Compared with plain unpickling, which may be trusted with what we wrote ourselves."""
    shared = torch.randn(4, 6)
    content = {
        'model': collections.OrderedDict(
            a=shared[1:3].t(),
            b=torch.nn.Parameter(shared.half()),
            c=torch.randn(3, dtype=torch.bfloat16),
            d=torch.tensor(3.5),
            e=torch.empty(0, 3),
            num_batches_tracked=torch.tensor(7),
        ),
        'args': argparse.Namespace(model='uniformer_small', out=pathlib.PurePosixPath('a')),
        'meta': {
            'sigmas': np.arange(6, dtype=np.float32).reshape(2, 3).T,
            'names': np.array(['nose', 'eye']),
            'big': np.arange(3, dtype='>i4'),
            'score': np.float64(0.5),
            'count': np.int64(3),
            'config': ConfigDict(a=1, b=[{'c': 2}]),
            'milestones': collections.Counter([3, 5]),
            'raw': b'\x00\xff',
            'classes': {'a', 'b'},
            'number': 1 << 80,
        },
    }
    content['args'].out = pathlib.PosixPath('a/b')
    path = saved(tmp_path / 'w.pth', content, _use_new_zipfile_serialization=zipped)
    plain = torch.load(path, weights_only=False)
    read = unpickle(path)
    assert list(read['model']) == list(plain['model'])
    for key, value in plain['model'].items():
        assert torch.equal(read['model'][key], value) and read['model'][key].dtype == value.dtype
    meta = read['meta']
    for key in ('sigmas', 'names', 'big'):
        np.testing.assert_array_equal(meta[key], plain['meta'][key])
        assert meta[key].dtype == plain['meta'][key].dtype
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(meta[key])), meta[key])
    for key in ('score', 'count', 'config', 'milestones', 'raw', 'number'):
        assert meta[key] == plain['meta'][key]
    assert sorted(meta['classes']) == ['a', 'b']
    assert vars(read['args']) == {'model': 'uniformer_small', 'out': 'a/b'}


class Call:
    """Pickles as a call of a function, with a state for the object that it makes."""

    def __init__(self, function, arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


def crafted_dtype():
    """A dtype whose flags say that its numbers are objects: NumPy follows them as pointers."""
    rebuild = np.zeros(1).__reduce__()[0]
    lying = Call(np.dtype, ('i8', False, True), (3, '<', None, None, None, -1, -1, 63))
    return Call(rebuild, (np.ndarray, (0,), b'b'), (1, (1,), lying, False, [1]))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_keys_that_take_for_ever_to_hash():
    """A tuple of two tuples of two tuples, 60 deep: 2^60 steps. It cannot even be made here."""
    twice = b'q\x00h\x00\x86'
    program = b'\x80\x02}' + b')' + twice * 60 + b'Ns.'
    with pytest.raises(Refused, match='keys that are neither text nor numbers'):
        _Machine(io.BytesIO(program), None).load()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'model': {'w': torch.zeros(1).expand(1 << 33)}}, 'elements in a storage of 1,'),
        ({'model': {'module.' * 200_000 + 'w': torch.zeros(1)}}, 'has 1,400,001 characters'),
        ({'model': {'w\x1b[31m': torch.zeros(1)}}, r'begins with .w.x1b\[31m'),
        ({'model': {'w': torch.zeros(1, dtype=torch.int8)}}, 'is of torch.int8, expected real'),
        ({'model': {'w': torch.zeros(1, dtype=torch.bool)}}, 'is of torch.bool'),
        ({'model': {'w': torch.zeros(1, dtype=torch.complex64)}}, 'is of torch.complex64'),
        ({'model': {'w': torch.zeros(1, dtype=torch.int64)}}, 'is of torch.int64'),
        ({'model': {'w': torch.zeros(2, 2).to_sparse()}}, 'holds code or objects'),
        ({'model': {'w': torch.zeros(1, device='meta')}}, 'holds code or objects'),
        ({'model': {'w': torch.zeros(1).to(torch.float8_e4m3fn)}}, 'code or objects|was refused'),
        ({'model': WEIGHTS, 'meta': {'x': crafted_dtype()}}, 'cut off or damaged'),
        ({'model': WEIGHTS, 'meta': {'x': np.array([print])}}, 'damaged|code or objects'),
        (
            {'model': WEIGHTS, 'meta': {'x': Call(eval, ('1',))}},
            r'objects \((builtins|__builtin__).eval',
        ),
        ({'model': WEIGHTS, 'meta': {'x': Call(os.system, ('true',))}}, r'posix\.system'),
        ({'model': WEIGHTS, 'meta': {'x': nested(300)}}, 'more than 40 deep'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_one_sentence(tmp_path, content, message):
    refuse(saved(tmp_path / 'w.pth', content), message)


def rewritten(path, change, method=zipfile.ZIP_STORED):
    """The zip file ``path`` with parts that ``change(name, bytes)`` returns."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w', method) as new:
        for name, data in parts.items():
            new.writestr(name, change(name, data))
    return path


def test_compressed_parts(tmp_path):
    path = saved(tmp_path / 'w.pth', {'model': {'w': torch.zeros(4)}})
    rewritten(path, lambda name, data: bytes(64 << 20) if name.endswith('data/0') else data, 8)
    assert path.stat().st_size < 1 << 20
    refuse(path, 'compressed parts, which torch does not write')


@pytest.mark.parametrize('declared', [b'\x05', b'\x03'])
def test_storage_of_another_size_than_declared(tmp_path, declared):
    """torch makes a tensor of what is declared, over whatever memory follows."""
    path = saved(tmp_path / 'w.pth', {'model': {'w': torch.zeros(4)}})
    with zipfile.ZipFile(path) as parts:
        pkl = next(parts.read(name) for name in parts.namelist() if name.endswith('data.pkl'))
    before = pkl.index(b'X\x03\x00\x00\x00cpu')
    at = pkl.index(b'K\x04t', before)
    changed = pkl[:at] + b'K' + declared + pkl[at + 2 :]
    rewritten(path, lambda name, data: changed if name.endswith('data.pkl') else data)
    refuse(path, 'a storage of . elements in 16 bytes')


def test_old_format_declares_no_more_than_it_holds(tmp_path):
    path = saved(
        tmp_path / 'w.pth', {'model': {'w': torch.zeros(4)}}, _use_new_zipfile_serialization=False
    )
    content = path.read_bytes()
    at = content.index(b'K\x04', content.index(b'X\x03\x00\x00\x00cpu'))
    path.write_bytes(content[:at] + b'J\xff\xff\xff\x7f' + content[at + 2 :])
    refuse(path, r'storages of 8,589,934,588 bytes in a file of')


def test_escapes_are_shown(tmp_path):
    content = {'model': WEIGHTS, 'epoch': '\x1b]0;title\x07', 'meta': {'a\x1b': ['\x9b31m']}}
    read = read_checkpoint(saved(tmp_path / 'w.pth', content))
    assert read.extras['epoch'] == '\\x1b]0;title\\x07'
    assert read.meta == {'a\\x1b': ['\\x9b31m']}


@pytest.mark.parametrize('reader', [read_checkpoint, file_digests])
def test_what_is_no_file_is_not_read(tmp_path, reader):
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    loop = tmp_path / 'loop'
    loop.symlink_to(loop)
    sparse = tmp_path / 'sparse.pth'
    with open(sparse, 'wb') as file:
        file.truncate(1 << 40)
    cases = {
        '/dev/zero': 'is a device, pipe or socket',
        fifo: 'is a device, pipe or socket',
        loop: 'cannot be opened',
        'a\0b': r'a\\x00b cannot be opened',
        'x' * 5000: r'x\.\.\. cannot be opened',
        sparse: 'is no checkpoint',
    }
    for path, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            reader(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_damaged_at_random(tmp_path, zipped):
    """Each file is read or refused; memory stays what the file needs."""
    chance = random.Random(0)
    content = {'model': WEIGHTS, 'meta': {'x': np.arange(9), 'y': ConfigDict(a='b')}, 'epoch': 3}
    path = saved(tmp_path / 'w.pth', content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    pickled = [i for i in range(len(whole)) if i < 900 or not zipped][:1500]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = collections.Counter()
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.choice(pickled)
            damaged[place] = chance.choice([chance.randrange(256), *b'(cR}]qXK\x80\x85.b'])
        if zipped:
            # Past the checksums, which would catch it all.
            damaged = rezipped(damaged, whole)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
            outcomes['read'] += 1
        except CheckpointError:
            outcomes['refused'] += 1
    assert outcomes['refused'] > 20
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 << 10


def rezipped(damaged, whole):
    """The archive ``whole`` with the damaged bytes of its pickle and right checksums."""
    with zipfile.ZipFile(io.BytesIO(whole)) as old:
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as new:
            for entry in old.infolist():
                data = old.read(entry)
                if entry.filename.endswith('data.pkl'):
                    at = whole.index(data)
                    data = bytes(damaged[at : at + len(data)])
                new.writestr(entry.filename, data)
    return out.getvalue()
