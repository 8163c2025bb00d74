# SPDX-License-Identifier: Apache-2.0
"""mmaction2 end to end on real gesture clips, through ``mim`` as a user would run it."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_dir
from .mim import read_scalars, run_mim

CONFIG = ROOT / 'configs' / 'video' / 'quickstart_kinetics.py'
CLIPS, EPOCHS = 4, 24

# The quickstart with its augmentation on one batch of clips, which it learns by heart.
OPTIONS = {
    'model.cls_head.num_classes': 11,
    'train_dataloader.batch_size': CLIPS,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'train_cfg.val_interval': EPOCHS // 2,
    'default_hooks.checkpoint.interval': EPOCHS // 2,
    'default_hooks.logger.interval': 1,
}


@pytest.fixture
def data_root(tmp_path) -> Path:
    """One clip of each of four gestures as Kinetics-400, to train and to validate."""
    source = shared_dir('data', 'gesture')
    root = tmp_path / 'data' / 'kinetics400'
    root.mkdir(parents=True)
    lines = (source / 'train_list.txt').read_text().splitlines()
    chosen = [next(line for line in lines if line.endswith(f' {label}')) for label in range(CLIPS)]
    for split in ('train', 'val'):
        (root / f'videos_{split}').symlink_to(source, target_is_directory=True)
        (root / f'kinetics400_{split}_list_videos.txt').write_text('\n'.join(chosen) + '\n')
    return root.parent


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmaction')
    work, half = data_root / 'work', EPOCHS // 2
    train = partial(run_mim, 'train', 'mmaction2', CONFIG, data_root)
    train(**OPTIONS, **{'train_cfg.max_epochs': half})
    assert (work / f'epoch_{half}.pth').exists()

    resumed = train('--resume', **OPTIONS, **{'train_cfg.max_epochs': EPOCHS})
    assert f'resumed epoch: {half}' in resumed
    checkpoint = work / f'epoch_{EPOCHS}.pth'

    logged = read_scalars(data_root)
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == EPOCHS
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])

    validated = [entry['acc/top1'] for entry in logged if 'acc/top1' in entry]
    tested = run_mim(
        'test', 'mmaction2', CONFIG, data_root, '--checkpoint', str(checkpoint), **OPTIONS
    )
    top1 = float(re.findall(r'acc/top1: ([0-9.]+)', tested)[-1])
    assert len(validated) == 2
    assert top1 == pytest.approx(validated[-1], abs=1e-3)
    assert 0 <= top1 <= 1
