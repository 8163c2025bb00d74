# SPDX-License-Identifier: Apache-2.0
"""Small networks in the toolboxes' own models, for tests of what happens around them."""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from uniformer_mm.cli import main
from uniformer_mm.evaluation.record import Record
from uniformer_mm.evaluation.running.protocol import Choices, build_config, data_root, network_of
from uniformer_mm.evaluation.running.reproduce import reproduce, tests_of

from ..conftest import ROOT

TINY = dict(depths=(1, 1, 2, 1), dims=(16, 32, 32, 64), head_dim=16)
PACKAGES = {
    'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg', 'pose': 'mmpose', 'video': 'mmaction',
}  # fmt: skip


QUICKSTARTS = {
    'video': 'configs/video/quickstart_kinetics.py',
    'seg': 'configs/seg/quickstart.py',
    'det': 'configs/det/quickstart.py',
    'pose': 'configs/pose/quickstart.py',
    'cls': 'configs/cls/quickstart.py',
}
PLAIN = {'batch_size': 2, 'workers': 0}


def enter(task: str) -> None:
    """Register a toolbox's classes and make its scope the current one."""
    import_module(f'{PACKAGES[task]}.utils').register_all_modules(False)
    init_default_scope(PACKAGES[task])


def config_of(name: str, data: Path, folder: Path, **choices) -> Config:
    """The test of a config of this repository."""
    task = name.split('/')[0]
    return build_config(ROOT / 'configs' / name, task, Choices(data=data, **choices), folder)


def shrink(config: Config) -> Config:
    """The same test with a network that costs nothing."""
    network = network_of(config)
    network.backbone.arch = TINY
    network.backbone.pop('with_cp', None)
    dims = list(TINY['dims'])
    if 'neck' in network and 'in_channels' in network.neck:
        network.neck.in_channels = dims
    for name in ('decode_head', 'auxiliary_head', 'cls_head', 'head'):
        head = network.get(name)
        if head and name == 'decode_head':
            head.channels = 32
        if head and name == 'decode_head' and isinstance(head.in_channels, list):
            head.in_channels = head.in_channels if 'neck' in network else dims
            head.norm_cfg = dict(type='BN')
        elif head and 'in_channels' in head:
            head.in_channels = dims[2] if name == 'auxiliary_head' else dims[-1]
            if 'norm_cfg' in head:
                head.norm_cfg = dict(type='BN')
    return config


def build_model(config: Config, seed: int = 0) -> nn.Module:
    """The network of a configuration with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return model.eval()


def run_pipeline(config: Config, info: dict) -> dict:
    """What the test's transforms make of one sample."""
    results = dict(info)
    for step in config.test_dataloader.dataset.pipeline:
        results = TRANSFORMS.build(step)(results)
    return results


def make_record(count: int, **facts) -> Record:
    """The record of a whole test of ``count`` files on a list of the published length."""
    usual = dict(
        protocol={}, published={}, intervals={}, interval_method='', listed=count,
        listed_files=count, published_files=count, samples=count, files=count, missing=0,
        limit=None, seed=0, weights='w.pth', weights_sha256='0' * 64, class_order='',
        config_sha256='1' * 64, list_sha256='2' * 64, device='CPU',
        date='2026-01-01T00:00:00+00:00',
    )  # fmt: skip
    return Record(**usual | facts)


def record_of(row: str, **changes) -> Record:
    """The record of an official test that gave the published numbers."""
    recipe = tests_of(row)[0].recipe
    numbers = {'metrics': dict(recipe.metrics), 'published': dict(recipe.metrics)}
    facts = {'row': row, 'task': recipe.task, 'config': recipe.config, **numbers}
    return make_record(100, **facts | changes)


def measure(task: str, data: Path, weights, work: Path, **choices) -> tuple[Path, Record]:
    """The test of a quickstart by this package."""
    (test,) = tests_of(str(ROOT / QUICKSTARTS[task]))
    enter(task)
    return reproduce(
        test,
        Choices(data=data, **PLAIN | choices),
        lambda done, total: None,
        weights=str(weights(task)),
        gpus=0,
        work_dir=work,
    )


def stock_metrics(task: str, data: Path, weights: Path, work: Path) -> dict[str, float]:
    """The toolbox's own test of the same config."""
    enter(task)
    with data_root(data):
        config = Config.fromfile(ROOT / QUICKSTARTS[task])
    config.merge_from_dict({
        'work_dir': str(work), 'load_from': str(weights),
        'test_dataloader.batch_size': 2, 'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
    })  # fmt: skip
    if task in ('det', 'pose'):
        config.test_evaluator.outfile_prefix = str(work / 'predictions')
    config.test_cfg = {'type': 'TestLoop'} if 'test_cfg' not in config else config.test_cfg
    return Runner.from_cfg(config).test()


def command(*words: str) -> tuple[int, str]:
    """Exit status of the console command in this process, and its words."""
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        status = main(list(words))
    return status, ' '.join(out.getvalue().split())
