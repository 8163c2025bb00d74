# SPDX-License-Identifier: Apache-2.0
"""mmpretrain end to end on real ImageNet photos, through ``mim`` as a user would run it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from ..conftest import ROOT, shared_dir
from .mim import read_scalars, run_mim

CONFIG = ROOT / 'configs/cls/quickstart.py'
CLASSES, PER_CLASS, BATCH, EPOCHS = 4, 2, 8, 40

# The quickstart on a few photos without its random crops and flips, evaluated on the same ones: it
# must be able to learn them by heart.
OPTIONS = {
    'model.head.num_classes': CLASSES,
    'model.data_preprocessor.num_classes': CLASSES,
    'model.head.topk': '(1,)',
    'val_evaluator.topk': '(1,)',
    'test_evaluator.topk': '(1,)',
    'train_dataloader.dataset.pipeline.1.crop_ratio_range': '(1.0,1.0)',
    'train_dataloader.dataset.pipeline.1.aspect_ratio_range': '(1.0,1.0)',
    'train_dataloader.dataset.pipeline.2.prob': 0.0,
    'train_dataloader.dataset.pipeline.3.prob': 0.0,
    'train_dataloader.batch_size': BATCH,
    'param_scheduler.total': EPOCHS,
    'train_cfg.val_interval': EPOCHS // 2,
    'default_hooks.checkpoint.interval': EPOCHS // 2,
    'default_hooks.logger.interval': 1,
}
for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
    OPTIONS |= {f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False}


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A few shared photos in ImageNet's folders, the same ones to train and to validate."""
    source = shared_dir('data', 'imagenette', 'train').resolve()
    for folder in sorted(source.iterdir())[:CLASSES]:
        for split in ('train', 'val'):
            target = tmp_path / 'imagenet' / split / folder.name
            target.mkdir(parents=True)
            for photo in sorted(folder.iterdir())[:PER_CLASS]:
                (target / photo.name).symlink_to(photo)
    return tmp_path


def mim(data_root: Path, verb: str, *arguments: str, **options) -> str:
    """Run ``mim VERB mmpretrain CONFIG``."""
    return run_mim(verb, 'mmpretrain', CONFIG, data_root, *arguments, **(OPTIONS | options))


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmpretrain')
    work, half = data_root / 'work', EPOCHS // 2
    mim(data_root, 'train', **{'train_cfg.max_epochs': half})
    assert (work / f'epoch_{half}.pth').exists()

    resumed = mim(data_root, 'train', '--resume', **{'train_cfg.max_epochs': EPOCHS})
    assert f'resumed epoch: {half}' in resumed
    assert 'no `ema_state_dict`' not in resumed
    checkpoint = work / f'epoch_{EPOCHS}.pth'

    logged = read_scalars(data_root)
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == EPOCHS * CLASSES * PER_CLASS // BATCH
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])

    validated = [entry['accuracy/top1'] for entry in logged if 'accuracy/top1' in entry]
    tested = mim(data_root, 'test', '--checkpoint', str(checkpoint))
    top1 = float(re.findall(r'accuracy/top1: ([0-9.]+)', tested)[-1])
    assert top1 == pytest.approx(validated[-1], abs=1e-3)
    assert top1 >= 75

    saved = torch.load(checkpoint, map_location='cpu', weights_only=False)
    raw, average = saved['state_dict'], saved['ema_state_dict']
    assert not torch.equal(raw['head.fc.weight'], average['module.head.fc.weight'])
    assert int(average['steps']) == len(losses)
