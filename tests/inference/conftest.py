# SPDX-License-Identifier: Apache-2.0
"""A tiny synthetic world, and the quickstarts' networks with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from uniformer_mm.inference import Predictor, load_predictor
from uniformer_mm.inference.engines import import_toolbox
from uniformer_mm.synth import make_data

from ..conftest import ROOT

QUICKSTARTS = {
    'det': 'det/quickstart.py',
    'seg': 'seg/quickstart.py',
    'pose': 'pose/quickstart.py',
    'video': 'video/quickstart_kinetics.py',
    'cls': 'cls/quickstart.py',
}
SAMPLES = {
    'det': ('coco/val2017', '*.jpg'),
    'seg': ('ade/ADEChallengeData2016/images/validation', '*.jpg'),
    'pose': ('coco/val2017', '0000015*.jpg'),
    'video': ('kinetics400/videos_val', '*/*.mp4'),
    'cls': ('imagenet/val', '*/*'),
}


@dataclass(frozen=True)
class Untrained:
    """A quickstart's model that knows nothing.

    Attributes:
        task: Its task.
        config: Path of its config.
        weights: A checkpoint as the runner saves it, without the config.
        samples: Images, or clips.
    """

    task: str
    config: Path
    weights: Path
    samples: list[Path]

    def load(self) -> Config:
        """The config."""
        return Config.fromfile(self.config)


@pytest.fixture(scope='session')
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('synthetic') / 'data'
    make_data(root, size='tiny', tasks=tuple(QUICKSTARTS))
    return root


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('untrained')


@pytest.fixture
def untrained(world, checkpoints, monkeypatch) -> Callable[[str], Untrained]:
    """Makes the model of a task once, in the synthetic world."""
    monkeypatch.setenv('UNIFORMER_DATA', str(world))

    def make(task: str) -> Untrained:
        config, path = ROOT / 'configs' / QUICKSTARTS[task], checkpoints / f'{task}.pth'
        import_toolbox(task)
        if not path.exists():
            loaded = Config.fromfile(config)
            torch.manual_seed(0)
            meta = DATASETS.build({**loaded.test_dataloader.dataset, 'pipeline': []}).metainfo
            state = MODELS.build(loaded.model).state_dict()
            saved = {} if task == 'pose' else {'dataset_meta': dict(meta)}
            torch.save({'state_dict': state, 'meta': saved}, path)
        folder, pattern = SAMPLES[task]
        return Untrained(task, config, path, sorted((world / folder).glob(pattern)))

    return make


@pytest.fixture
def predictor(untrained) -> Callable[..., Predictor]:
    def make(task: str, **options) -> Predictor:
        model = untrained(task)
        return load_predictor(model.config, model.weights, device='cpu', **options)

    return make
