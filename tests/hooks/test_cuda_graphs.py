# SPDX-License-Identifier: Apache-2.0
"""The backbone recorded through a config, under mmengine's runner."""

from __future__ import annotations

from pathlib import Path

import uniformer_mm  # noqa: F401  (registers the types)

from ..models.rehearsal import Rehearsal
from .helpers import check_alike, train


def test_training_replays_and_learns_the_same(tmp_path: Path) -> None:
    plain = train(tmp_path / 'plain', [])
    recorder = Rehearsal()
    hook = dict(type='uniformer_mm.CudaGraphHook', warmup=1, recorder=recorder)
    replayed = train(tmp_path / 'replayed', [hook])
    # Four batches, of which the first is the warm-up; forward and backward.
    assert (recorder.recorded, recorder.replayed) == (2, 6)
    check_alike(replayed, plain)
