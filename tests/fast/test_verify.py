# SPDX-License-Identifier: Apache-2.0
"""A block is compared with its plain form before its first use, and falls back if it is wrong."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from uniformer_mm import fast
from uniformer_mm.fast import door, verify
from uniformer_mm.ops.torch import rows

from .blocks import KINDS, build, plain


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of this test alone; blocks are compared on a CPU too."""
    monkeypatch.setenv('UNIFORMER_MM_CACHE', str(tmp_path))
    monkeypatch.setenv('UNIFORMER_FAST', 'verify')
    monkeypatch.setattr(door, 'triton_is_interpreted', lambda: True)
    # A map of several tiles is for kernels.
    monkeypatch.setattr(verify, 'ROWS', 3)
    monkeypatch.setattr(verify, 'COLUMNS', 4)
    verify.forget()
    yield tmp_path / 'verified.json'
    verify.forget()


def break_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    right = rows.add_branch

    def wrong(x, branch, *options):
        y, copy = right(x, branch, *options)
        return y.where(y < 1.5, 0), copy

    monkeypatch.setattr(rows, 'add_branch', wrong)


@pytest.mark.parametrize('kind', KINDS)
def test_right_blocks_are_found_right(kind: str, record: Path) -> None:
    block, x = build(kind, layer_scale=0.3, drop_path=0.2)
    block, x = block.float(), x.float()
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    random_numbers = torch.get_rng_state()
    assert fast.why_not(block, x) is None
    # Neither the block nor the state of random numbers has changed.
    assert torch.equal(torch.get_rng_state(), random_numbers)
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert all(p.grad is None for p in block.parameters())
    (verdict,) = json.loads(record.read_text())['verdicts'].items()
    assert kind.split()[0] in verdict[0]
    assert verdict[1] is None


def test_half_precision_and_evaluation_under_no_grad() -> None:
    block, x = build('local 2-D')
    block = block.float()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        for stream in (torch.float32, torch.bfloat16):
            assert fast.why_not(block, x.to(stream)) is None
    assert len(verify._verdicts) == 2


def test_a_broken_kernel_falls_back_warns_once_and_stays_right(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_sum(monkeypatch)
    block, x = build('global 2-D')
    block, x = block.float(), x.float()
    with pytest.warns(RuntimeWarning, match=r'global 2-D, 8-16 channels.* runs in plain PyTorch'):
        y = block(x)
    assert torch.equal(y, plain(block, x))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(block(x), y)
    assert 'is off by' in fast.why_not(block, x)
    # Another process knows, and says so once too.
    verify.forget()
    monkeypatch.setenv('UNIFORMER_FAST', '1')
    monkeypatch.setattr(door, '_why_not_verified', verify.why_not_verified)
    monkeypatch.setattr(verify, 'compare', lambda *_: pytest.fail('compared again'))
    with pytest.warns(RuntimeWarning, match='is off by'):
        assert torch.equal(block(x), y)


def test_a_kernel_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('triton', reason='the package triton is not installed')
    from uniformer_mm.ops.triton.rows import add_branch_kernel

    def fail(*_: object) -> None:
        raise RuntimeError('out of registers')

    monkeypatch.setattr(add_branch_kernel, 'look_up', fail)
    monkeypatch.setattr(
        rows, 'add_branch', lambda x, *_: add_branch_kernel((1,), (x,), (1,), {}) or (x, None)
    )
    block, x = build('local 2-D')
    with pytest.warns(RuntimeWarning, match='kernel add_branch_kernel: RuntimeError in training'):
        assert 'out of registers' in fast.why_not(block.float(), x.float())


def test_the_user_s_verify_compares_again(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = build('local 2-D')
    block, x = block.float(), x.float()
    with monkeypatch.context() as broken:
        break_sum(broken)
        with pytest.warns(RuntimeWarning, match='plain PyTorch'):
            fast.why_not(block, x)
    verify.forget()
    assert fast.why_not(block, x) is None
    assert list(json.loads(record.read_text())['verdicts'].values()) == [None]


@pytest.mark.parametrize('text', ['', '{', '[]', '{"version": 1}', '{"version": 1, "verdicts": 3}'])
def test_a_broken_record_is_replaced(text: str, record: Path) -> None:
    record.write_text(text)
    block, x = build('local 2-D')
    assert fast.why_not(block.float(), x.float()) is None
    assert len(json.loads(record.read_text())['verdicts']) == 1


def test_a_record_that_cannot_be_written_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('UNIFORMER_MM_CACHE', str(tmp_path / 'file'))
    block, x = build('local 2-D')
    assert fast.why_not(block.float(), x.float()) is None
    assert 'cannot be written' in caplog.text


def test_what_hangs_on_a_block_is_not_copied(record: Path) -> None:
    class Run:
        def __deepcopy__(self, memo: dict) -> Run:
            raise AssertionError('copied')

        def hook(self, *_: object) -> None:
            raise AssertionError('called')

    block, x = build('local 2-D')
    run = Run()
    block.run = run
    block.register_forward_hook(run.hook)
    assert fast.why_not(block.float(), x.float()) is None
