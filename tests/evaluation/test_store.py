# SPDX-License-Identifier: Apache-2.0
"""What is stored comes back exactly, whole batches at a time, whatever happens to the writer."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from uniformer_mm.evaluation.running.codec import decode, encode
from uniformer_mm.evaluation.running.store import PredictionStore, Stored

IDENTITY = {'weights': 'a', 'configuration': 'b'}

WRITER = """
import sys
from uniformer_mm.evaluation.running.store import PredictionStore, Stored
store = PredictionStore(sys.argv[1], {'weights': 'a', 'configuration': 'b'})
position = 0
while True:
    store.add([Stored(position + i, 'k', 'p', 0.0, [position]) for i in range(5)])
    position += 5
    print(position, flush=True)
"""


def sample(position: int, results: list, key: str = 'a/b.jpg') -> Stored:
    return Stored(position, key, f'/data/{key}', 0.25, results)


@pytest.mark.parametrize(
    'value',
    [
        None,
        True,
        0.1 + 0.2,
        float('inf'),
        [1, 'ü', b'\x00\xff'],
        (np.float32(0.1), np.int64(2**40)),
        {'size': [3, 4], 'counts': b'rle', 7: (), 'nested': [{'a': ()}]},
        np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2],
        np.zeros((0, 4), np.uint8),
        torch.linspace(0, 1, 7).half(),
        torch.tensor([1, 2, 3]),
    ],
    ids=str,
)
def test_every_kind_comes_back_as_it_was(value):
    def equal(a, b) -> bool:
        assert type(a) is type(b)
        if isinstance(a, dict):
            return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(equal, a, b))
        if isinstance(a, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, np.ndarray | np.generic):
            return a.dtype == b.dtype and np.array_equal(a, b)
        return a == b

    assert equal(value, decode(encode(value)))


def test_objects_are_refused():
    with pytest.raises(ValueError, match='a PosixPath cannot be stored'):
        encode({'x': [Path('x')]})
    with pytest.raises(ValueError, match='a ndarray cannot be stored'):
        encode(np.array([object()]))


def test_processes_share_a_folder(tmp_path):
    first, second = (PredictionStore(tmp_path, IDENTITY, rank=rank) for rank in (0, 1))
    first.add([sample(4, [4]), sample(0, [0])])
    second.add([sample(2, [2])])
    # A sample that two processes have finished counts once.
    second.add([sample(4, [4])])
    assert first.finished() == {0, 2, 4}
    read = list(PredictionStore(tmp_path).read())
    assert [(s.position, s.results) for s in read] == [(0, [0]), (2, [2]), (4, [4])]
    assert read[0].path == '/data/a/b.jpg' and read[0].seconds == 0.25


def test_another_test_does_not_mix_in(tmp_path):
    PredictionStore(tmp_path, IDENTITY).close()
    PredictionStore(tmp_path, IDENTITY, rank=1).close()
    with pytest.raises(ValueError, match=r'results of another test \(weights differ\).*--restart'):
        PredictionStore(tmp_path, {**IDENTITY, 'weights': 'other'})


def test_folders_that_cannot_hold_it(tmp_path):
    with pytest.raises(ValueError, match=r'cannot be written.*choose another folder'):
        PredictionStore(tmp_path / 'absent', IDENTITY)
    (tmp_path / 'predictions.0.sqlite').write_text('no database, but long enough to be read as one')
    with pytest.raises(ValueError, match='no store of predictions'):
        PredictionStore(tmp_path, IDENTITY)


def test_a_killed_writer_leaves_whole_batches(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, '-c', WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        written = [int(writer.stdout.readline()) for _ in range(20)][-1]
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    finished = PredictionStore(tmp_path, IDENTITY).finished()
    assert len(finished) >= written
    assert len(finished) % 5 == 0 and finished == set(range(len(finished)))
