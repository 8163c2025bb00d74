# SPDX-License-Identifier: Apache-2.0
"""``tools/count_work.py``: what a network moves and computes on a GPU that is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip('triton', reason='the package triton is not installed')

from tools import count_work
from tools.benchmarking.variants import Work
from uniformer_mm.models import ARCHS
from uniformer_mm.ops.launch import Kernel

IMAGE = Work('tiny', 'image', 'global', (5, 64, 64), 'bfloat16', 'inference')
CLIP = Work('tiny', 'video', 'global', (1, 4, 64, 64), 'bfloat16', 'training')


def depthwise_by_hand(work: Work) -> float:
    """GFLOP: 3 taps a side in every block, 5 more in a convolution block."""
    arch, rank = ARCHS[work.arch], len(work.shape) - 1
    batch, *frames, side, _ = work.shape
    total = 0
    for stage, (depth, dim) in enumerate(zip(arch.depths, arch.dims, strict=True)):
        positions = (side // 4 // 2**stage) ** 2 * (frames[0] // 2 if frames else 1)
        taps = 3**rank + (5**rank if stage < 2 else 0)
        total += 2 * batch * positions * taps * dim * depth
    return total * (3 if work.mode == 'training' else 1) / 1e9


@pytest.mark.parametrize('work', [IMAGE, CLIP], ids=['image', 'clip'])
def test_depthwise_operations_are_those_of_their_taps(work: Work) -> None:
    _, depthwise = count_work.computed(replace(work, shape=(1, *work.shape[1:])))
    assert work.shape[0] * depthwise == pytest.approx(depthwise_by_hand(work))


def test_larger_batches_are_counted_from_small_ones() -> None:
    counts = {row.variant: row for row in count_work.count(IMAGE, ['official', 'eager'])}
    for variant, row in counts.items():
        total, launches = count_work.moved(variant, IMAGE)
        assert row.gib * 2**30 == pytest.approx(total, rel=1e-6)
        assert row.launches == launches
    assert counts['official'].launches == 0 < counts['eager'].launches
    assert counts['eager'].gib < counts['official'].gib


def test_ceilings_turn_into_time() -> None:
    row = count_work.Count('work', 'eager', 1000.0, 500.0, 30.0, 1)
    assert row.milliseconds(copy=2.0, matmul=250.0, fma=10.0) == (
        pytest.approx(1000 * 2**30 / 2e12 * 1e3),
        pytest.approx(500e9 / 250e12 * 1e3),
        pytest.approx(30e9 / 10e12 * 1e3),
    )


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    launch, path = Kernel.__call__, tmp_path / 'counts.json'
    shape = 'x'.join(map(str, CLIP.shape))
    arguments = ['--arch', 'tiny', '--task', 'video', '--shape', shape, '--json', str(path)]
    assert count_work.main([*arguments, '--mode', 'training']) == 0
    rows = json.loads(path.read_text())
    assert [row['variant'] for row in rows] == ['official', 'eager']
    assert rows[0]['depthwise_gflop'] == pytest.approx(depthwise_by_hand(CLIP))
    assert str(CLIP) in capsys.readouterr().out.replace('\n', ' ')
    assert Kernel.__call__ is launch, 'kernels work again afterwards'
