# SPDX-License-Identifier: Apache-2.0
"""mmpose end to end on real COCO persons, through ``mim`` as a user would run it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_dir

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
    """Run ``mim VERB mmpose CONFIG`` in a foreign directory and return what it prints."""
    detections = data_root / 'coco/person_detection_results/test_coco_det_AP_H_56.json'
    for part in ('val', 'test'):
        options |= {
            f'{part}_dataloader.dataset.bbox_file': detections,
            f'{part}_evaluator.ann_file': data_root / 'coco/annotations/test_coco_4img.json',
        }
    pairs = [f'{key}={value}' for key, value in (OPTIONS | options).items()]
    environment = os.environ | {
        'UNIFORMER_DATA': str(data_root),
        'CUDA_VISIBLE_DEVICES': '',
        # Two threads for so little work wait for each other where the cores are busy.
        'OMP_NUM_THREADS': '1',
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        ['mim', verb, 'mmpose', str(CONFIG), *arguments,
         '--work-dir', str(data_root / 'work'), '--cfg-options', *pairs],
        cwd=data_root, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def scalars(work: Path) -> list[dict]:
    """All logged scalars of all training runs, in order."""
    files = sorted(work.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmpose')
    work, half = data_root / 'work', EPOCHS // 2
    mim(data_root, 'train', **{'train_cfg.max_epochs': half})
    assert (work / f'epoch_{half}.pth').exists()

    resumed = mim(data_root, 'train', '--resume', **{'train_cfg.max_epochs': EPOCHS})
    assert f'resumed epoch: {half}' in resumed
    checkpoint = work / f'epoch_{EPOCHS}.pth'

    logged = scalars(work)
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
