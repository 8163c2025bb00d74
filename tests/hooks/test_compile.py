# SPDX-License-Identifier: Apache-2.0
"""The backbone compiled through a config, under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch._dynamo.utils import counters

import uniformer_mm  # noqa: F401  (registers the types)

from .helpers import Classifier, train


def test_training_compiles_one_graph_and_learns_the_same(tmp_path: Path) -> None:
    plain = train(tmp_path / 'plain', []).model.state_dict()
    counters.clear()
    torch._dynamo.reset()
    hook = dict(type='uniformer_mm.CompileHook', backend='eager')
    compiled = train(tmp_path / 'compiled', [hook]).model.state_dict()
    assert counters['stats']['unique_graphs'] == 1
    assert list(compiled) == list(plain)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5)
    # A checkpoint of the compiled run fits the plain network.
    load_checkpoint(Classifier(), str(tmp_path / 'compiled/epoch_2.pth'), strict=True)


def test_an_unknown_module_is_named(tmp_path: Path) -> None:
    hook = dict(type='uniformer_mm.CompileHook', modules=('neck',))
    with pytest.raises(ValueError, match=r"'neck' is not a module .*'backbone'"):
        train(tmp_path, [hook])
