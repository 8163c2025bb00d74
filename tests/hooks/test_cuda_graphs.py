# SPDX-License-Identifier: Apache-2.0
"""The backbone recorded through a config, under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import Tensor

import uniformer_mm  # noqa: F401  (registers the types)
from uniformer_mm.models import recordings

from .helpers import Classifier, train


class Rehearsal(recordings.CudaRecorder):
    """Does the work where CUDA graphs would record and replay it; counts the replays."""

    replayed = 0

    def takes(self, x: Tensor) -> bool:
        return True

    def pool(self, x: Tensor) -> None:
        return None

    def record(self, work, x: Tensor, pool: None):
        # The first result only shows the shapes.
        with torch.inference_mode(False):
            work()

        def replay() -> None:
            Rehearsal.replayed += 1
            with torch.enable_grad():
                work()

        return replay


def test_training_replays_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tmp_path / 'plain', [], norm_eval=True).model.state_dict()
    monkeypatch.setattr('uniformer_mm.models.cuda_graphs.CudaRecorder', Rehearsal)
    hook = dict(type='uniformer_mm.CudaGraphHook', warmup=1)
    replayed = train(tmp_path / 'replayed', [hook], norm_eval=True).model.state_dict()
    # Four batches, of which the first is the warm-up; forward and backward.
    assert Rehearsal.replayed == 6
    assert list(replayed) == list(plain)
    for name, tensor in plain.items():
        torch.testing.assert_close(replayed[name], tensor, rtol=1e-4, atol=1e-5)
    load_checkpoint(Classifier(), str(tmp_path / 'replayed/epoch_2.pth'), strict=True)


def test_an_unknown_module_is_named(tmp_path: Path) -> None:
    hook = dict(type='uniformer_mm.CudaGraphHook', modules=('neck',))
    with pytest.raises(ValueError, match=r"'neck' is not a module .*'backbone'"):
        train(tmp_path, [hook])
