# SPDX-License-Identifier: Apache-2.0
"""mmpose end to end on real COCO persons, through ``mim`` as a user would run it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_dir
from .mim import read_scalars, run_mim

CONFIG = ROOT / 'configs/pose/quickstart.py'
PERSONS, BATCH, EPOCHS = 8, 4, 48

# The quickstart on a few persons without its random draws: it must be able to learn them by heart.
# Validation is on four photos with the boxes of a real detector.
OPTIONS = {
    'train_dataloader.dataset.indices': PERSONS,
    'train_dataloader.dataset.pipeline.2.prob': 0.0,
    'train_dataloader.dataset.pipeline.3.scale_std': 0.0,
    'train_dataloader.dataset.pipeline.3.rotate_prob': 0.0,
    'train_dataloader.batch_size': BATCH,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'param_scheduler.0.end': 5,
    'train_cfg.val_interval': EPOCHS // 2,
    'default_hooks.checkpoint.interval': EPOCHS // 2,
    'default_hooks.logger.interval': 1,
}
for loader in ('val_dataloader', 'test_dataloader'):
    OPTIONS |= {
        f'{loader}.num_workers': 0,
        f'{loader}.persistent_workers': False,
        f'{loader}.dataset.ann_file': 'annotations/test_coco_4img.json',
    }


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """The shared photos of persons where the configs look for COCO."""
    (tmp_path / 'coco').symlink_to(shared_dir('data', 'coco_pose').resolve())
    return tmp_path


def mim(data_root: Path, verb: str, *arguments: str, **options) -> str:
    """Run ``mim VERB mmpose CONFIG`` with the detector's boxes."""
    detections = data_root / 'coco/person_detection_results/test_coco_det_AP_H_56.json'
    for part in ('val', 'test'):
        options |= {
            f'{part}_dataloader.dataset.bbox_file': detections,
            f'{part}_evaluator.ann_file': data_root / 'coco/annotations/test_coco_4img.json',
        }
    return run_mim(verb, 'mmpose', CONFIG, data_root, *arguments, **(OPTIONS | options))


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmpose')
    work, half = data_root / 'work', EPOCHS // 2
    mim(data_root, 'train', **{'train_cfg.max_epochs': half})
    assert (work / f'epoch_{half}.pth').exists()

    resumed = mim(data_root, 'train', '--resume', **{'train_cfg.max_epochs': EPOCHS})
    assert f'resumed epoch: {half}' in resumed
    checkpoint = work / f'epoch_{EPOCHS}.pth'

    logged = read_scalars(data_root)
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == EPOCHS * PERSONS // BATCH
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])

    validated = [entry['coco/AP'] for entry in logged if 'coco/AP' in entry]
    tested = mim(data_root, 'test', '--checkpoint', str(checkpoint))
    ap = float(re.findall(r'coco/AP: ([-0-9.]+)', tested)[-1])
    assert len(validated) == 2
    assert ap == pytest.approx(validated[-1], abs=1e-4)
    recall = float(re.findall(r'coco/AR: ([-0-9.]+)', tested)[-1])
    assert 0 <= ap <= 1
    assert 0 <= recall <= 1
