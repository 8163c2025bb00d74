# SPDX-License-Identifier: Apache-2.0
"""The process that tests: ``python -m uniformer_mm.evaluation.running.worker FOLDER [--collect]``.

It runs what ``FOLDER/test.py`` and ``FOLDER/test.json`` say in the toolbox's scope, alone or as one
of several that torchrun starts, and says progress, result or error in single lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ...recipes import find_recipe
from .weights import load_model

CONFIG, SPEC = 'test.py', 'test.json'
RESULT, ERROR = '@result ', '@error '

_PACKAGES = {
    'cls': 'mmpretrain',
    'det': 'mmdet',
    'seg': 'mmseg',
    'pose': 'mmpose',
    'video': 'mmaction',
}


def main(arguments: list[str] | None = None) -> int:
    """Test; returns 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog='uniformer_mm.evaluation.running.worker')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--collect', action='store_true', help='leave the metrics to another')
    args = parser.parse_args(arguments)
    try:
        result = run(args.folder, collect=args.collect)
    except ValueError as error:
        _say(ERROR, ' '.join(str(error).split()))
        return 2
    _say(RESULT, result)
    return 0


def run(folder: Path, *, collect: bool = False) -> dict:
    """Test what a folder describes.

    Args:
        folder: Folder with the configuration.
        collect: Only store the results of the samples.

    Returns:
        The toolbox's metrics, what is known of data and weights, and the device.
    """
    config = Config.fromfile(folder / CONFIG)
    spec = json.loads((folder / SPEC).read_text(encoding='utf-8'))
    rank = int(os.environ.get('RANK', 0))
    config.test_cfg.update(
        shard=rank, shards=int(os.environ.get('WORLD_SIZE', 1)), score=not collect
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
    import_module(f'{_PACKAGES[spec["task"]]}.utils').register_all_modules(False)
    runner = Runner.from_cfg(config)
    recipe = find_recipe(spec['row']) if spec['row'] else None
    loaded = load_model(
        getattr(runner.model, 'module', runner.model),
        spec['weights'],
        spec['task'],
        recipe=recipe,
        class_order=spec['class_order'],
    )
    metrics = runner.test()
    return {
        'metrics': {name: float(value) for name, value in metrics.items()},
        'data': runner.test_loop.counts,
        'weights': asdict(loaded),
        'classes': list(runner.test_loop.dataloader.dataset.metainfo.get('classes') or ()),
    }


def _say(tag: str, value: object) -> None:
    sys.stdout.write(f'\n{tag}{json.dumps(value)}\n')
    sys.stdout.flush()


if __name__ == '__main__':
    sys.exit(main())
