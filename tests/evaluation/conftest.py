# SPDX-License-Identifier: Apache-2.0
"""Synthetic data, random weights, and tests that run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from uniformer_mm.evaluation.record import Record
from uniformer_mm.evaluation.running import reproduce as reproduce_module
from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.protocol import data_root
from uniformer_mm.synth import make_data

from ..conftest import ROOT
from .helpers import QUICKSTARTS, enter, measure


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('synthetic') / 'data'
    make_data(root, size='tiny', tasks=('video', 'seg', 'det', 'pose', 'cls'))
    return root


@pytest.fixture(scope='session')
def weights(data, tmp_path_factory):
    """Random weights of a quickstart's model, made once for each task."""
    folder = tmp_path_factory.mktemp('weights')

    def make(task: str) -> Path:
        path = folder / f'{task}.pth'
        if not path.exists():
            enter(task)
            with data_root(data):
                config = Config.fromfile(ROOT / QUICKSTARTS[task])
            config.model.backbone.pop('init_cfg', None)
            torch.manual_seed(0)
            state = MODELS.build(config.model).state_dict()
            # One answer for all samples, so that some are right and some are not.
            for key in ('cls_head.fc_cls.bias', 'head.fc.bias'):
                if key in state:
                    state[key][1] += 100
            torch.save({'state_dict': state}, path)
        return path

    return make


def _here(folder: Path, gpus: int, advance) -> dict:
    return worker.run(folder)


@pytest.fixture
def in_process(monkeypatch):
    """Run the worker here instead of in a process of its own, which costs an import each."""
    monkeypatch.setattr(reproduce_module, 'run_test', _here)


@pytest.fixture(scope='session')
def whole(data, weights, tmp_path_factory):
    """A quickstart's test in one go: its folder and record, made once for each task."""
    root, found = tmp_path_factory.mktemp('whole'), {}

    def make(task: str) -> tuple[Path, Record]:
        if task not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(reproduce_module, 'run_test', _here)
                found[task] = measure(task, data, weights, root / task)
        return found[task]

    return make
