# SPDX-License-Identifier: Apache-2.0
"""The backbone compiled through a config, under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

import uniformer_mm  # noqa: F401  (registers the types)

from .helpers import check_alike, train


def test_training_compiles_one_graph_and_learns_the_same(tmp_path: Path) -> None:
    plain = train(tmp_path / 'plain', [])
    counters.clear()
    torch._dynamo.reset()
    hook = dict(type='uniformer_mm.CompileHook', backend='eager')
    compiled = train(tmp_path / 'compiled', [hook])
    assert counters['stats']['unique_graphs'] == 1
    check_alike(compiled, plain)


@pytest.mark.parametrize('first', ['average', 'compiled'])
def test_the_average_of_a_compiled_backbone_is_the_same(first: str, tmp_path: Path) -> None:
    """In either order: the average is a copy of the model, made before or after."""
    average = dict(type='uniformer_mm.TrackedEMAHook', momentum=0.3, update_buffers=True)
    compiled = dict(type='uniformer_mm.CompileHook', backend='eager')
    hooks = [average, compiled] if first == 'average' else [compiled, average]
    runners = train(tmp_path / 'both', hooks), train(tmp_path / 'plain', [average])
    check_alike(*runners)
    ours, theirs = (
        torch.load(f'{runner.work_dir}/epoch_2.pth', weights_only=False)['ema_state_dict']
        for runner in runners
    )
    assert list(ours) == list(theirs)
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=1e-4, atol=1e-5)
