# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/roofline.py``: what a network moves and computes on a GPU that is not there."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

pytest.importorskip('triton', reason='the package triton is not installed')

from tools.benchmark import roofline
from tools.benchmark.measure import step
from tools.benchmark.overhead import as_on_a_gpu
from tools.benchmark.traffic import CountBytes, moved_bytes
from tools.benchmark.variants import build, random_state
from tools.benchmark.workloads import Workload
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models import ARCHS
from uniformer_mm.ops.triton.launch import Kernel

IMAGE = Workload('tiny', 'image', 'global', (5, 64, 64), 'bfloat16', 'inference')
# A map of 5 x 4 tokens in stage 3 does not fill its window.
WINDOWS = Workload('tiny', 'dense', 'window', (2, 80, 64), 'bfloat16', 'inference')
CLIP = Workload('tiny', 'video', 'global', (1, 4, 64, 64), 'bfloat16', 'training')


def depthwise_by_hand(work: Workload) -> float:
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
def test_depthwise_operations_are_those_of_their_taps(work: Workload) -> None:
    _, depthwise = roofline.computed_gflop(work)
    assert depthwise == pytest.approx(depthwise_by_hand(work))


@pytest.mark.parametrize('work', [IMAGE, WINDOWS, CLIP], ids=['image', 'windows', 'clip'])
def test_bytes_are_those_of_a_pass_with_memory(
    work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the partial sums of operators that the fake pass counts from outside."""
    counts = {row.variant: row.gib for row in roofline.count(work, ['official', 'fast'])}
    assert counts['fast'] < counts['official']
    monkeypatch.setattr(OfficialUniFormer, 'autocast_as_on_gpu', True)
    for variant, gib in counts.items():
        network = build(variant, work, random_state(work))
        network.cpu_dtypes = {torch.bfloat16, torch.float16}
        run = step(network, work.sample('cpu'), work)
        with (
            as_on_a_gpu() if variant == 'fast' else nullcontext(),
            monkeypatch.context() as context,
        ):
            context.setattr(Kernel, '__call__', lambda *arguments: None)
            run()
            real = moved_bytes(run) / 2**30
        assert gib == pytest.approx(real, rel=0.02), variant


def test_views_and_unfilled_memory_move_nothing() -> None:
    x = torch.ones(8, 8)
    with CountBytes() as moved:
        torch.empty_like(x)
        x.new_empty(3)
        torch.empty_strided((2, 2), (1, 2))
        parts = x.split_with_sizes([3, 5])
        parts[0].t().unsqueeze(0).expand(2, -1, -1).diagonal(0, 1, 2)
        x[2:, 1].view(2, 3).unflatten(1, (3, 1)).movedim(0, 1)
        assert moved.total == 0
        y = x + parts[0][:1]
        assert moved.total == x.nbytes + y.nbytes + 8 * 4


def test_ceilings_turn_into_time() -> None:
    row = roofline.Count('work', 'fast', 1000.0, 500.0, 30.0)
    assert row.milliseconds(copy=2.0, matmul=250.0, fma=10.0) == (
        pytest.approx(1000 * 2**30 / 2e12 * 1e3),
        pytest.approx(500e9 / 250e12 * 1e3),
        pytest.approx(30e9 / 10e12 * 1e3),
    )


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    launch, path = Kernel.__call__, tmp_path / 'counts.json'
    shape = 'x'.join(map(str, CLIP.shape))
    arguments = ['--arch', 'tiny', '--task', 'video', '--shape', shape, '--json', str(path)]
    assert roofline.main([*arguments, '--mode', 'training']) == 0
    rows = json.loads(path.read_text())
    assert [row['variant'] for row in rows] == ['official', 'fast']
    assert rows[0]['depthwise_gflop'] == pytest.approx(depthwise_by_hand(CLIP))
    assert str(CLIP) in capsys.readouterr().out.replace('\n', ' ')
    assert Kernel.__call__ is launch, 'kernels work again afterwards'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shape', '8x64'], "--shape '8x64' must be batch x height x width"),
        (['--shape', '8x16x64'], 'and a height and width of at least 32 pixels'),
        (['--attention', 'divided'], 'divided attention needs clips; choose another --task'),
        (['--arch', 'xxs', '--attention', 'window'], 'xxs has global attention only'),
        (['--arch', 'nope'], "invalid choice: 'nope' (choose from 'tiny', 'xxs'"),
        (['--json', '{file}/counts.json'], 'counts.json: cannot be written'),
    ],
)
def test_says_what_does_not_go_together(
    arguments: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(SystemExit) as left:
        roofline.main([argument.format(file=file) for argument in arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_light_arch_has_its_own_attention(tmp_path: Path) -> None:
    path = tmp_path / 'counts.json'
    arguments = ['--arch', 'xxs', '--task', 'dense', '--shape', '1x64x64', '--json', str(path)]
    assert roofline.main([*arguments, '--mode', 'inference', '--variant', 'official']) == 0
    (row,) = json.loads(path.read_text())
    assert row['work'] == 'dense xxs global 1x64x64 bfloat16 inference'
