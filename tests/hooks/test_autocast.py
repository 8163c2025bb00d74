# SPDX-License-Identifier: Apache-2.0
"""Half-precision validation and tests under mmengine's runner: what runs in which format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn
from torch.nn.functional import linear
from torch.utils.data import Dataset

import uniformer_mm  # noqa: F401  (registers the types)
from uniformer_mm.hooks.autocast import to_float32

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}
TORCH = tuple(int(part) for part in torch.__version__.split('.')[:2])
float16_on_a_cpu = pytest.mark.skipif(TORCH < (2, 4), reason='autocast has float16 from 2.4 on')


class Vectors(Dataset):
    """Four fixed vectors."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {'x': torch.randn(4, generator=torch.Generator().manual_seed(index))}


class Net(BaseModel):
    """A body and a head; predictions are data samples, as in the toolboxes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)
        self.fails = False
        self.seen = []

    def forward(self, x: torch.Tensor, mode: str = 'tensor'):
        features = self.body(x)
        scores = self.head(features)
        self.seen.append((mode, features.dtype, scores.dtype))
        if self.fails:
            raise ZeroDivisionError
        if mode == 'loss':
            return dict(loss=scores.float().square().mean())
        return [BaseDataElement(scores=row) for row in scores]


class Collected(BaseMetric):
    """Keeps the scores as NumPy arrays, which know no bfloat16."""

    def process(self, data_batch, data_samples) -> None:
        # mmengine hands samples over as dicts. A product here is the evaluator's, not the model's.
        outside = torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype
        assert outside == torch.float32
        self.results += [sample['scores'].numpy() for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        self.last = torch.tensor(np.array(results))
        return {'mean': float(self.last.mean())}


def loader() -> dict:
    return dict(
        batch_size=2,
        num_workers=0,
        dataset=Vectors(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )


def build(work: Path, hooks: list, model: nn.Module | None = None, **options) -> Runner:
    return Runner(
        model or Net(),
        str(work),
        train_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_dataloader=loader(),
        val_cfg=dict(type='ValLoop', **options),
        val_evaluator=[Collected()],
        test_dataloader=loader(),
        test_cfg=dict(type='TestLoop', **options),
        test_evaluator=[Collected()],
        custom_hooks=hooks,
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=str(work).replace('/', '_'),
    )


def hook(**options) -> dict:
    return dict(type='uniformer_mm.InferenceAutocastHook', **options)


def everything() -> dict[str, torch.Tensor]:
    """All vectors as one batch."""
    return {'x': torch.stack([Vectors()[index]['x'] for index in range(4)])}


def scores_of(runner: Runner, stage: str = 'val') -> torch.Tensor:
    """What the metric kept of the last evaluation."""
    return getattr(runner, f'{stage}_loop').evaluator.metrics[0].last


def by_hand(net: Net, dtype: torch.dtype, head: torch.dtype) -> torch.Tensor:
    """The scores with each product's operands rounded explicitly."""
    x = everything()['x']
    features = linear(x.to(dtype), net.body.weight.to(dtype), net.body.bias.to(dtype))
    scores = linear(features.to(head), net.head.weight.to(head), net.head.bias.to(head))
    return scores.detach().float()


def check_no_trace(model: nn.Module) -> None:
    assert not {'val_step', 'test_step'} & set(vars(model))
    assert 'forward' not in vars(model.head)
    assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float32


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('kept', [(), ('head',)])
@pytest.mark.parametrize('dtype', ['bfloat16', pytest.param('float16', marks=float16_on_a_cpu)])
def test_a_step_computes_in_the_format(stage: str, kept: tuple, dtype: str, tmp_path: Path) -> None:
    runner = build(tmp_path, [hook(dtype=dtype, float32_modules=kept)])
    getattr(runner, stage)()
    head = torch.float32 if kept else DTYPES[dtype]
    assert set(runner.model.seen) == {('predict', DTYPES[dtype], head)}
    expected = by_hand(runner.model, DTYPES[dtype], head)
    torch.testing.assert_close(scores_of(runner, stage), expected, rtol=0, atol=0)
    check_no_trace(runner.model)


def test_training_between_validations_is_untouched(tmp_path: Path) -> None:
    plain, mixed = build(tmp_path / 'plain', []), build(tmp_path / 'mixed', [hook()])
    plain.train()
    mixed.train()
    dtypes = {mode: body for mode, body, _ in mixed.model.seen}
    assert dtypes == {'loss': torch.float32, 'predict': torch.bfloat16}
    torch.testing.assert_close(mixed.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)
    check_no_trace(mixed.model)


@float16_on_a_cpu
def test_it_holds_within_the_loop_s_own_autocast(tmp_path: Path) -> None:
    """On a CPU mmengine's ``fp16=True`` is bfloat16."""
    alone = build(tmp_path / 'alone', [], fp16=True)
    with pytest.raises(TypeError, match='BFloat16'):
        alone.val()
    runner = build(tmp_path / 'both', [hook(dtype='float16')], fp16=True)
    runner.val()
    assert set(runner.model.seen) == {('predict', torch.float16, torch.float16)}
    expected = by_hand(runner.model, torch.float16, torch.float16)
    torch.testing.assert_close(scores_of(runner), expected, rtol=0, atol=0)


@float16_on_a_cpu
def test_the_surrounding_autocast_goes_on_after_the_step() -> None:
    net = Net()
    built = HOOKS.build(hook(dtype='float16'))
    with torch.autocast('cpu', torch.bfloat16):
        # The framework keeps cast weights, whatever format they have.
        assert net.body(torch.ones(1, 4)).dtype == torch.bfloat16
        built.before_val_iter(type('Runner', (), {'model': net}), 0)
        net.val_step(everything())
        assert net.body(torch.ones(1, 4)).dtype == torch.bfloat16
    assert net.seen == [('predict', torch.float16, torch.float16)]


def test_a_format_that_the_framework_leaves_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch 2.1 does with float16 on the CPU, with a warning."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())
    with pytest.raises(ValueError, match=r"float16 is no format of autocast on 'cpu'"):
        build(tmp_path, [hook(dtype='float16')]).val()


class Failing(Hook):
    """Fails before or after the second step."""

    priority = 'LOW'

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, where: str, index: int) -> None:
        if (where, index) == (self.where, 1):
            raise ZeroDivisionError

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.fail('before', batch_idx)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.fail('after', batch_idx)


@pytest.mark.parametrize('where', ['before', 'within', 'after'])
def test_nothing_stays_behind_after_an_error(where: str, tmp_path: Path) -> None:
    runner = build(tmp_path, [hook(float32_modules=('head',))])
    runner.register_hook(Failing(where))
    runner.model.fails = where == 'within'
    with pytest.raises(ZeroDivisionError):
        runner.val()
    check_no_trace(runner.model)


def test_steps_that_never_came_do_not_pile_up() -> None:
    """Loops of some toolboxes call no step of the model."""
    net = Net()
    runner = type('Runner', (), {'model': net})
    built = HOOKS.build(hook())
    built.before_run(runner)
    for index in range(2000):
        built.before_val_iter(runner, index)
    net.val_step(everything())
    check_no_trace(net)


def test_a_step_that_was_replaced_before_is_put_back() -> None:
    net = Net()
    calls = []
    net.val_step = calls.append
    built = HOOKS.build(hook())
    built.before_val_iter(type('Runner', (), {'model': net}), 0)
    net.val_step('first')
    net.val_step('second')
    assert calls == ['first', 'second']
    assert vars(net)['val_step'] == calls.append


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    """What a distributed wrapper asks for."""
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures('one_process_group')
def test_it_reaches_through_a_wrapper() -> None:
    wrapped = MMDistributedDataParallel(Net())
    runner = type('Runner', (), {'model': wrapped})
    built = HOOKS.build(hook(float32_modules=('head',)))
    built.before_run(runner)
    built.before_test_iter(runner, 0)
    wrapped.test_step(everything())
    assert wrapped.module.seen == [('predict', torch.bfloat16, torch.float32)]
    assert 'test_step' not in vars(wrapped)
    check_no_trace(wrapped.module)


def test_the_average_of_the_weights_is_evaluated_so(tmp_path: Path) -> None:
    average = dict(type='EMAHook', momentum=0.4)
    runner = build(tmp_path, [average, hook(float32_modules=('head',))])
    runner.train()
    averaged = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    expected = by_hand(averaged, torch.bfloat16, torch.float32)
    torch.testing.assert_close(scores_of(runner), expected, rtol=0, atol=0)
    trained = by_hand(runner.model, torch.bfloat16, torch.float32)
    assert (trained - expected).abs().max() > 1e-3, 'the two can be told apart'


def test_what_evaluators_get_is_float32_and_the_rest_as_it_was() -> None:
    half = torch.ones(2, dtype=torch.bfloat16)
    sample = BaseDataElement(metainfo=dict(scale=half))
    sample.instances = InstanceData(scores=half, labels=torch.arange(2), names=['a', 'b'])
    sample.by_class = {'a': [half.half()], 'n': 3}
    double = torch.ones(1, dtype=torch.float64)
    (got,), tensor, same = to_float32(([sample], half, double))
    assert got is sample
    assert same is double
    assert tensor.dtype == got.instances.scores.dtype == torch.float32
    assert got.by_class['a'][0].dtype == torch.float32
    assert got.by_class['n'] == 3
    assert got.instances.labels.dtype == torch.int64
    assert got.instances.names == ['a', 'b']
    assert got.scale is half or got.scale.dtype == torch.bfloat16, 'no output'


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype='float32' must be one of .*leave the hook out"):
        HOOKS.build(hook(dtype='float32'))
    with pytest.raises(ValueError, match=r"'neck' is not a module .*'body'"):
        build(tmp_path, [hook(float32_modules=('neck',))]).train()
