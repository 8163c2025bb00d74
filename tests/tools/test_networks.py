# SPDX-License-Identifier: Apache-2.0
"""``tools/benchmark/networks.py``: what it writes, what it counts and what it refuses."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from tests.conftest import SMALL_LIGHT
from tools.benchmark import measure, networks, parity, timing, variants
from tools.benchmark.measure import NO_MEMORY, NO_MEMORY_TO_COMPARE, operations
from tools.benchmark.traffic import CountBytes
from tools.benchmark.workloads import Workload
from uniformer_mm.models import ARCHS, blocks, uniformer
from uniformer_mm.models.arch import Arch

ARGUMENTS = ['--device', 'cpu', '--repeats', '2', '--threads', '1']
IMAGE = ['--arch', 'narrow', '--shape', '2x64x64']
TRAINING = [*IMAGE, '--mode', 'training']
NARROW = {'depths': (1, 1, 2, 1), 'dims': (8, 8, 16, 16), 'head_dim': 8}


@pytest.fixture(autouse=True)
def _small_works(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(ARCHS, 'narrow', Arch(**NARROW))
    monkeypatch.setitem(ARCHS, 'light', Arch(**SMALL_LIGHT))
    rooflines = timing.Roofline(flops=1e9, bytes=1e9)
    monkeypatch.setattr(networks, 'measure_roofline', lambda *_: rooflines)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(path: Path, *arguments: str) -> tuple[int, list[dict]]:
    status = networks.main([*ARGUMENTS, '--json', str(path), *arguments])
    return status, json.loads(path.read_text())['rows']


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., tuple[int, list[dict]]]:
    """Runs the tool; its exit status and rows."""
    return lambda *arguments: run(tmp_path / 'rows.json', *arguments)


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a hook on a variant's network, or another function into its place."""

    def change(hook: Callable, variant: str = 'fast', before: bool = False) -> None:
        builder = variants.VARIANTS[variant]

        def build(work: Workload) -> nn.Module:
            network = builder(work)
            (network.register_forward_pre_hook if before else network.register_forward_hook)(hook)
            return network

        monkeypatch.setitem(variants.VARIANTS, variant, build)

    return change


def test_rows_and_plot(tmp_path: Path) -> None:
    plot, path = tmp_path / 'new' / 'plot.png', tmp_path / 'rows.json'
    status, rows = run(path, *TRAINING, '--plot', str(plot))
    assert status == 0
    machine = json.loads(path.read_text())['machine']
    assert f'torch {torch.__version__}, Triton ' in machine
    assert [row['variant'] for row in rows] == ['official', 'fast']
    work = Workload('narrow', 'image', 'global', (2, 64, 64), 'float32', 'training')
    flops = operations(variants.build('official', work, variants.random_state(work)), work)
    for row in rows:
        assert row['low_ms'] <= row['median_ms'] <= row['high_ms']
        assert row['of_matmul'] == pytest.approx(flops / 1e9 / (row['median_ms'] / 1e3))
        assert (row['of_copy'] is None) == (row['variant'] == 'fast')
        assert row['error'] < 1e-4
        assert row['checked'] == ''
        assert set(row['training_errors']) == {
            'outputs in training',
            'running statistics',
            'parameter gradients',
            'input gradients',
        }
        assert max(row['training_errors'].values()) < 1e-4
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_operations_are_counted_without_memory() -> None:
    """A matrix of the reference's global attention would have 137 GB here."""
    work = Workload('narrow', 'image', 'global', (2, 4096, 4096), 'float32', 'inference')
    network = variants.build('official', work, variants.random_state(work))
    tokens, blocks, channels, batch = (4096 // 16) ** 2, NARROW['depths'][2], 16, 2
    assert operations(network, work) > blocks * batch * 4 * tokens**2 * channels


@pytest.mark.parametrize(
    ('task', 'shape'), [('image', '2x64x64'), ('dense', '1x64x96'), ('video', '1x4x64x64')]
)
def test_light_archs(task: str, shape: str, rows: Callable) -> None:
    """With one sample too, and with the attention they have where the task has another."""
    arguments = ['--arch', 'light', '--task', task, '--shape', shape]
    status, found = rows(*arguments, '--mode', 'inference', 'training')
    assert status == 0, found
    assert {row['work']['attention'] for row in found} == {'global'}
    assert [row['refused'] for row in found] == [''] * 4


def times_ten(y: Tensor) -> Tensor:
    """The same values, with ten times the gradient."""
    return 10 * y - 9 * y.detach()


def move_statistics(network: nn.Module, *_: object) -> None:
    if network.training:
        # Past autograd, which would notice.
        network.norm.running_mean.data += 0.1


# What is wrong with a variant: a hook, whether it comes before the pass, the reason.
WRONG = {
    'outputs': (lambda m, x, y: y * 1.001, False, 'its outputs differ by 1.0e-03, more than 1.0e'),
    'training': (lambda m, x, y: y * 1.01 if m.training else y, False, 'its outputs in training'),
    'not a number': (lambda m, x, y: y * float('nan'), False, 'its outputs differ by nan'),
    'gradients': (lambda m, x, y: times_ten(y), False, 'its parameter gradients differ by 9.0e+00'),
    'input': (lambda m, x: times_ten(x[0]), True, 'its input gradients differ by 9.0e+00'),
    'statistics': (move_statistics, False, 'its running statistics differ'),
    'shape': (lambda m, x, y: y[:, :1], False, 'but the reference [(2, 16, 2, 2)]'),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_a_variant_that_computes_something_else_is_refused(
    wrong: str, rows: Callable, changed: Callable
) -> None:
    hook, before, reason = WRONG[wrong]
    changed(hook, before=before)
    status, (right, refused) = rows(*TRAINING)
    assert status == 1
    assert not right['refused']
    assert reason in refused['refused']
    assert refused['median_ms'] == 0


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_may_err_as_the_reference_does(
    dtype: str, rows: Callable, changed: Callable
) -> None:
    work = Workload('narrow', 'image', 'global', (2, 64, 64), dtype, 'training')
    reason = variants.why_not('official', work, 'cpu')
    if dtype == 'float16' and reason:
        pytest.skip(f'{reason}; newer releases, such as the one of make setup, do')
    status, found = rows(*TRAINING, '--dtype', dtype)
    assert status == 0, found
    assert 1e-4 < found[0]['training_errors']['parameter gradients'] < 0.1
    changed(lambda m, x, y: times_ten(y))
    status, (_, refused) = rows(*TRAINING, '--dtype', dtype)
    assert status == 1
    assert 'its parameter gradients differ' in refused['refused']


def test_what_is_replayed_is_compared(
    rows: Callable, changed: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After warming up and recording, each time from the same statistics."""
    monkeypatch.setattr(measure, 'REPLAYED', ('fast',))
    status, (_, replayed) = rows(*TRAINING)
    assert status == 0, replayed
    assert set(replayed['training_errors']) == {
        'outputs in training',
        'running statistics',
        'parameter gradients',
    }
    passes = 0

    def replay(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal passes
        passes += network.training
        return times_ten(y) if passes >= variants.PASSES else y

    changed(replay)
    status, (_, refused) = rows(*TRAINING)
    assert status == 1
    assert 'its parameter gradients differ by 9.0e+00' in refused['refused']


def raises(error: Callable[[], Exception], least: int = 0) -> Callable:
    """A hook that fails on maps of so many pixels a side, if they have memory."""

    def hook(network: nn.Module, x: tuple[Tensor]) -> None:
        if x[0].shape[-1] >= least and not isinstance(x[0], FakeTensor):
            raise error()

    return hook


NO_MEMORY_ERRORS = {
    'GPU': lambda: torch.cuda.OutOfMemoryError('Tried to allocate 80 GiB'),
    'CPU': lambda: torch.empty(1 << 60),
    'old CPU': lambda: RuntimeError('DefaultCPUAllocator: not enough memory: you tried to'),
    'numpy': lambda: MemoryError('Unable to allocate'),
}


@pytest.mark.parametrize('kind', NO_MEMORY_ERRORS)
def test_no_memory_is_a_row_and_the_run_goes_on(
    kind: str, rows: Callable, changed: Callable
) -> None:
    def error() -> Exception:
        return NO_MEMORY_ERRORS[kind]()

    changed(raises(error, 96), before=True)
    status, found = rows('--arch', 'narrow', '--shape', '2x96x96', '2x64x64')
    assert status == 1
    assert [row['refused'] for row in found] == ['', NO_MEMORY, '', '']


def test_no_memory_while_it_is_timed(rows: Callable, changed: Callable) -> None:
    """What the variant held is free for the next one already."""
    networks, calls, left = [], [], []

    def fail(network: nn.Module, x: tuple[Tensor]) -> None:
        networks.append(weakref.ref(network))
        if len(networks) == 3:  # compared, warmed up, timed
            raise torch.cuda.OutOfMemoryError('Tried to allocate 80 GiB')

    def look(*_: object) -> None:
        calls.append(len(networks))
        if len(networks) == 3:
            left.append(networks[0]() is not None)

    changed(fail, before=True)
    changed(look, 'fast-autocast-stream')
    variant = ['--variant', 'fast', 'fast-autocast-stream', 'official']
    status, found = rows(*IMAGE, *variant)
    assert status == 1
    assert [row['refused'] for row in found] == [NO_MEMORY, '', '']
    assert calls[:3] == [2, 2, 3]
    assert left[0] is False


def test_other_errors_are_not_hidden(rows: Callable, changed: Callable) -> None:
    changed(raises(lambda: RuntimeError('shapes cannot be multiplied')), before=True)
    with pytest.raises(RuntimeError, match='cannot be multiplied'):
        rows(*IMAGE)


def test_a_sentence_of_the_network_is_a_row(rows: Callable, changed: Callable) -> None:
    changed(raises(lambda: ValueError('x [/B] must be square.'), 96), before=True)
    status, found = rows('--arch', 'narrow', '--shape', '2x96x96', '2x64x64')
    assert status == 1
    assert [row['refused'] for row in found] == ['', 'x [/B] must be square.', '', '']


def test_larger_sizes_are_not_tried(
    rows: Callable, changed: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(raises(NO_MEMORY_ERRORS['GPU'], 96), before=True)
    built, build = [], measure.build

    def counted(variant: str, work: Workload, state: dict) -> nn.Module:
        built.append((variant, work.shape[-1]))
        return build(variant, work, state)

    monkeypatch.setattr(measure, 'build', counted)
    scale = ['--scale', 'resolution', '--sizes', '128', '96', '64']
    status, found = rows('--arch', 'narrow', '--shape', '2x64x64', *scale)
    assert status == 1
    refused = {row['work']['shape'][-1]: row['refused'] for row in found[1::2]}
    assert refused == {64: '', 96: NO_MEMORY, 128: 'ran out of memory at a smaller size'}
    assert [size for variant, size in built if variant == 'fast'] == [64, 96]
    assert not any(row['refused'] for row in found[::2])


def in_batches(network: nn.Module, x: tuple[Tensor]) -> None:
    if len(x[0]) > 1 and not isinstance(x[0], FakeTensor):
        raise torch.cuda.OutOfMemoryError('Tried to allocate 80 GiB')


def test_where_the_reference_has_no_memory_one_sample_is_compared(
    rows: Callable, changed: Callable, capsys: pytest.CaptureFixture
) -> None:
    changed(in_batches, 'official', before=True)
    status, (official, eager) = rows(*TRAINING)
    assert status == 1
    assert official['refused'] == NO_MEMORY
    assert eager['refused'] == ''
    assert eager['checked'] == '1x64x64'
    assert eager['work']['shape'] == [2, 64, 64]
    assert '(1x64x64)' in capsys.readouterr().out
    changed(lambda m, x, y: times_ten(y))
    _, (_, eager) = rows(*TRAINING)
    assert 'its parameter gradients differ' in eager['refused']


def test_nothing_is_timed_that_cannot_be_compared(rows: Callable, changed: Callable) -> None:
    changed(raises(NO_MEMORY_ERRORS['GPU'], 64), 'official', before=True)
    scale = ['--scale', 'batch', '--sizes', '1', '2', '4']
    status, found = rows(*IMAGE, *scale)
    assert status == 1
    after = networks.NOT_TRIED[NO_MEMORY_TO_COMPARE]
    assert [row['refused'] for row in found[1::2]] == [NO_MEMORY_TO_COMPARE, after, after]


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--arch', 'narrow', '--attention', 'divided'], 'divided attention needs clips'),
        (['--arch', 'light', '--attention', 'hybrid'], 'light has global attention only'),
        (['--arch', 'narrow', '--variant', 'graphs'], 'CUDA graphs need a GPU, not cpu'),
        (['--arch', 'narrow', '--variant', 'mmaction2'], 'mmaction2 has the 3-D network'),
    ],
)
def test_what_does_not_exist_is_said_before_it_is_built(
    arguments: list,
    reason: str,
    tmp_path: Path,
    rows: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(measure, 'build', None)
    monkeypatch.setattr(measure, 'decisive_state', None)
    plot = tmp_path / 'plot.png'
    status, found = rows('--task', 'dense', '--shape', '1x64x64', *arguments, '--plot', str(plot))
    assert status == 1
    assert all(reason in row['refused'] for row in found)
    assert plot.exists()


def test_mmaction2_may_be_absent(rows: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants.importlib.util, 'find_spec', lambda name: None)
    clip = ['--arch', 'narrow', '--task', 'video', '--shape', '1x4x64x64']
    status, (row,) = rows(*clip, '--variant', 'mmaction2')
    assert status == 1
    assert row['refused'] == 'the package mmaction2 is not installed'


def test_float16_needs_a_torch_that_has_it(rows: Callable, monkeypatch) -> None:
    monkeypatch.setattr(variants, '_cpu_has_float16', lambda: False)
    status, found = rows(*IMAGE, '--dtype', 'float16')
    assert status == 1
    assert all('has no float16 autocast on a CPU' in row['refused'] for row in found)


@pytest.mark.parametrize('has', [True, False])
def test_shares_are_of_what_the_processor_computes(
    has: bool, rows: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours computes in float32 where the reference's bfloat16 is emulated, without a roofline."""
    for module in (variants, uniformer):
        monkeypatch.setattr(module, 'cpu_multiplies', lambda _: has)
    rates = {'float32': 1e9, 'bfloat16': 2e9}
    monkeypatch.setattr(
        networks, 'measure_roofline', lambda _, dtype, *__: timing.Roofline(rates[dtype], 1e9)
    )
    monkeypatch.setattr(parity, 'FLOAT32_TOLERANCE', 1)
    status, (official, eager) = rows(*IMAGE, '--dtype', 'bfloat16')
    assert status == 0
    work = Workload('narrow', 'image', 'global', (2, 64, 64), 'bfloat16', 'inference')
    flops = operations(variants.build('official', work, variants.random_state(work)), work)
    rate = rates['bfloat16' if has else 'float32']
    assert eager['of_matmul'] == pytest.approx(flops / rate / (eager['median_ms'] / 1e3))
    assert (official['of_matmul'] is None) == (not has)


def test_what_is_not_counted_is_not_printed(
    rows: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(variants.VARIANTS, 'compile', variants._ours)
    status, (row,) = rows(*IMAGE, '--variant', 'compile')
    assert status == 0
    assert row['of_copy'] is None
    assert ' 0%' not in capsys.readouterr().out
    assert networks.share(0.123) == '12%'


def test_eager_is_plain_and_fast_is_not(rows: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def local_block(*_: object) -> None:
        raise AssertionError('a fused block ran')

    monkeypatch.setattr(blocks.fast, 'local_block', local_block)
    arguments = [*IMAGE, '--mode', 'inference', 'training', '--variant']
    status, found = rows(*arguments, 'official', 'eager')
    assert status == 0, found
    with pytest.raises(AssertionError, match='a fused block ran'):
        rows(*arguments, 'fast')


def test_bytes_of_operators_and_kernels() -> None:
    x = torch.zeros(10, 20)
    with CountBytes().with_kernels() as moved:
        (x + x).view(200)
    assert moved.total == 2 * x.nbytes  # the sum, and one map that is both factors
    with CountBytes().with_kernels() as moved:
        x + x.clone()
    assert moved.total == (2 + 3) * x.nbytes


def test_a_launch_counts_its_tensors_once() -> None:
    pytest.importorskip('triton', reason='the package triton is not installed')
    from uniformer_mm.ops.triton.launch import Constants, Kernel

    class Function:
        """Stands for a Triton kernel that computes nothing."""

        @staticmethod
        def fn() -> None:
            """What it is made of."""

        def __getitem__(self, grid: tuple) -> Callable:
            return lambda *arguments, **constants: None

    x, y, launch = torch.zeros(10, 20), torch.zeros(30), Kernel.__call__
    with CountBytes().with_kernels() as moved:
        Kernel(Function())((1,), (x, y, y), (4,), Constants(C=4))
    assert (moved.total, moved.launches) == (x.nbytes + y.nbytes, 1)
    assert Kernel.__call__ is launch


@pytest.mark.parametrize(
    ('tool', 'driver'), [('echo 580.159.03; echo 580.159.03', '580.159.03'), ('exit 9', 'unknown')]
)
def test_versions_of_a_gpu(
    tool: str, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'nvidia-smi'
    path.write_text(f'#!/bin/sh\n{tool}\n')
    path.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    assert f'CUDA 13.0, driver {driver}, Python ' in timing.versions('cuda')
    path.unlink()
    assert 'driver unknown' in timing.versions('cuda')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--task', 'video'], "'2x64x64' must be batch x frames x height x width"),
        (['--shape', '2x16x64'], 'the shape 2x16x64; expected sizes of at least 1, and a height'),
        (['--shape', '0x64x64'], 'expected sizes of at least 1'),
        (['--arch', 'nope'], "invalid choice: 'nope' (choose from 'tiny', 'xxs'"),
        (['--repeats', '0'], '--repeats 0 must be at least 1'),
        (['--operators', '-1'], '--operators -1 must be at least 0'),
        (['--device', 'tpu'], "--device 'tpu' must be cpu, cuda or cuda:N"),
        (['--device', 'cuda:99'], '--device cuda:99: torch'),
        (['--sizes', '64'], '--sizes needs --scale'),
        (['--scale', 'frames'], '--scale frames needs clips'),
        (['--scale', 'resolution', '--sizes', '16'], 'size 16 of --scale resolution gives'),
        (['--scale', 'batch', '--shape', '1x64x64', '2x64x64'], '--shape gives 2; give one'),
        (['--json', '{file}/rows.json'], 'rows.json: cannot be written'),
        (['--plot', '{folder}'], 'has no known format; end it in one of'),
        (['--plot', '{file}/plot.png'], 'plot.png: cannot be written'),
    ],
)
def test_says_what_does_not_go_together(
    arguments: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'file').touch()
    names = {'file': tmp_path / 'file', 'folder': tmp_path}
    arguments = [argument.format(**names) for argument in arguments]
    with pytest.raises(SystemExit) as left:
        networks.main([*ARGUMENTS, *IMAGE, *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
