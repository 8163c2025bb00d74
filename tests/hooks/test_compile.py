# SPDX-License-Identifier: Apache-2.0
"""The backbone compiled through a config, under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

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
