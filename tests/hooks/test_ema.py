# SPDX-License-Identifier: Apache-2.0
"""The moving average in one operator: mmengine's numbers, options, keys and checkpoints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from uniformer_mm.hooks.ema import ForeachMovingAverage, TrackedEMAHook

from .helpers import train

MOMENTUM = 0.3
OPTIONS = [
    dict(momentum=MOMENTUM, interval=interval, update_buffers=update_buffers)
    for interval in (1, 3)
    for update_buffers in (False, True)
]


class Net(nn.Module):
    """Parameters in three dtypes; buffers with fractions and a whole one, as in BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.single = nn.Linear(4, 3)
        self.double = nn.Linear(3, 2, dtype=torch.float64)
        self.brain = nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))


def networks(steps: int) -> list[Net]:
    """The same network after each step of a training that changes everything."""
    torch.manual_seed(0)
    found = []
    for step in range(steps):
        net = Net()
        for tensor in net.state_dict().values():
            tensor.fill_(step + 1) if not tensor.is_floating_point() else tensor.normal_()
        found.append(net)
    return found


def copied(average: ExponentialMovingAverage) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in average.state_dict().items()}


def by_hand(steps: list[Net], interval: int, update_buffers: bool) -> dict[str, torch.Tensor]:
    """The recursion in float64, from the first step's values on."""
    trained = dict(steps[0].named_parameters())
    average = {k: v.double() for k, v in steps[0].state_dict().items()}
    for index, net in enumerate(steps):
        for name, value in net.state_dict().items():
            moves = name in trained or update_buffers
            if not moves:
                average[name] = value.double()
            elif index and index % interval == 0 and value.is_floating_point():
                average[name] += MOMENTUM * (value.double() - average[name])
    return average


@pytest.mark.parametrize('options', OPTIONS)
def test_every_step_is_mmengine_s_to_the_bit(options: dict) -> None:
    steps = networks(8)
    ours, theirs = (
        ForeachMovingAverage(steps[0], **options),
        ExponentialMovingAverage(steps[0], **options),
    )
    for net in steps:
        ours.update_parameters(net)
        theirs.update_parameters(net)
        torch.testing.assert_close(copied(ours), copied(theirs), rtol=0, atol=0)
    expected = by_hand(steps, options['interval'], options['update_buffers'])
    for name, value in ours.module.state_dict().items():
        rtol = 0.05 if value.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(value.double(), expected[name], rtol=rtol, atol=1e-5)


class Operators(TorchDispatchMode):
    """Counts what the framework is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.counts[operator.overloadpacket] += 1
        return operator(*args, **(kwargs or {}))


def test_one_operator_averages_all_tensors_of_a_dtype() -> None:
    steps = networks(4)
    average = ForeachMovingAverage(steps[0], momentum=MOMENTUM, interval=2, update_buffers=True)
    launches = []
    for net in steps:
        with Operators() as operators:
            average.update_parameters(net)
        assert not operators.counts[torch.ops.aten.lerp_]
        launches.append(operators.counts[torch.ops.aten._foreach_lerp_])
    # A copy, an idle step, one for each of the three dtypes, an idle step.
    assert launches == [0, 0, 3, 0]


def test_a_checkpoint_of_mmengine_s_average_goes_on() -> None:
    steps = networks(6)
    options = dict(momentum=MOMENTUM, interval=2, update_buffers=True)
    theirs = ExponentialMovingAverage(steps[0], **options)
    for net in steps[:3]:
        theirs.update_parameters(net)
    ours = ForeachMovingAverage(steps[-1], **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for net in steps[3:]:
        ours.update_parameters(net)
        theirs.update_parameters(net)
    torch.testing.assert_close(copied(ours), copied(theirs), rtol=0, atol=0)


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_the_hook_takes_it_in_every_scope(scope: str) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        hook = HOOKS.build(dict(type='uniformer_mm.TrackedEMAHook', momentum=MOMENTUM))
        average = MODELS.build(hook.ema_cfg, default_args=dict(model=Net()))
    assert type(average) is ForeachMovingAverage
    assert average.momentum == MOMENTUM


def saved(runner: Runner) -> dict[str, torch.Tensor]:
    return torch.load(f'{runner.work_dir}/epoch_2.pth', weights_only=False)['ema_state_dict']


def test_training_saves_what_it_saved_with_mmengine_s(tmp_path: Path) -> None:
    hook = dict(type='uniformer_mm.TrackedEMAHook', momentum=MOMENTUM, update_buffers=True)
    other = dict(hook, ema_type='ExponentialMovingAverage')
    ours, theirs = saved(train(tmp_path / 'a', [hook])), saved(train(tmp_path / 'b', [other]))
    assert list(ours) == list(theirs)
    assert ours['steps'] == 4
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=0)


def begun(hook: TrackedEMAHook, model: nn.Module, resume: bool, checkpoint: dict) -> TrackedEMAHook:
    """The hook after a checkpoint was loaded first and the run began afterwards."""
    runner = SimpleNamespace(model=model, _resume=resume)
    model.load_state_dict(checkpoint['state_dict'])
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_run(runner)
    return hook


@pytest.mark.parametrize('resume', [False, True])
def test_a_checkpoint_loaded_before_the_run_begins(resume: bool) -> None:
    trained, average = networks(2)
    checkpoint = {
        'state_dict': trained.state_dict(),
        'ema_state_dict': {
            'steps': torch.tensor(7),
            **{f'module.{key}': value for key, value in average.state_dict().items()},
        },
    }
    with DefaultScope.overwrite_default_scope('mmengine'):
        hook = begun(TrackedEMAHook(momentum=MOMENTUM), Net(), resume, checkpoint)
    found = copied(hook.ema_model)
    expected = average if resume else trained
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(found[f'module.{key}'], value, rtol=0, atol=0)
    assert int(found['steps']) == (7 if resume else 0)
    # The model itself keeps what was loaded.
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(hook.src_model.state_dict()[key], value, rtol=0, atol=0)
