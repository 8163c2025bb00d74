# SPDX-License-Identifier: Apache-2.0
"""mmdet end to end on real COCO photos, through ``mim`` as a user would run it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_dir
from .mim import read_scalars, run_mim

CONFIG = ROOT / 'configs/det/quickstart.py'
PHOTOS, BATCH, EPOCHS = 4, 2, 20

OPTIONS = {
    # COCO's own 80 classes.
    'train_dataloader.dataset.metainfo': None,
    'model.roi_head.bbox_head.num_classes': 80,
    'model.roi_head.mask_head.num_classes': 80,
    # Few steps see few confident boxes; keep enough of them to evaluate.
    'model.test_cfg.rcnn.score_thr': 0.001,
    'train_dataloader.batch_size': BATCH,
    'param_scheduler.0.end': 5,
    'train_cfg.val_interval': EPOCHS // 2,
    'default_hooks.checkpoint.interval': EPOCHS // 2,
    'default_hooks.logger.interval': 1,
    'log_processor.window_size': 1,
}
for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
    OPTIONS |= {
        f'{loader}.dataset.metainfo': None,
        f'{loader}.num_workers': 0,
        f'{loader}.persistent_workers': False,
    }


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A few real photos in COCO's layout, the same ones for training and validation."""
    source = shared_dir('data', 'coco').resolve()
    truth = json.loads((source / 'annotations/instances_train2017.json').read_text())
    crowded = {item['image_id'] for item in truth['annotations'] if item['iscrowd']}
    masks: dict[int, list] = {}
    for item in truth['annotations']:
        masks.setdefault(item['image_id'], []).append(item)
    chosen = [i for i in sorted(masks) if i not in crowded and 2 <= len(masks[i]) <= 6][:PHOTOS]
    truth['images'] = [image for image in truth['images'] if image['id'] in chosen]
    truth['annotations'] = [item for i in chosen for item in masks[i]]
    (tmp_path / 'coco/annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (tmp_path / f'coco/{split}2017').symlink_to(source / 'train2017')
        path = tmp_path / f'coco/annotations/instances_{split}2017.json'
        path.write_text(json.dumps(truth))
    return tmp_path


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmdet')
    half = EPOCHS // 2
    run_mim('train', 'mmdet', CONFIG, data_root, **OPTIONS, **{'train_cfg.max_epochs': half})
    assert (data_root / f'work/epoch_{half}.pth').exists()

    resumed = run_mim(
        'train',
        'mmdet',
        CONFIG,
        data_root,
        '--resume',
        **OPTIONS,
        **{'train_cfg.max_epochs': EPOCHS},
    )
    assert f'resumed epoch: {half}' in resumed
    checkpoint = data_root / f'work/epoch_{EPOCHS}.pth'

    logged = read_scalars(data_root)
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == EPOCHS * PHOTOS // BATCH
    assert all(map(math.isfinite, losses))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])

    tested = run_mim('test', 'mmdet', CONFIG, data_root, '--checkpoint', str(checkpoint), **OPTIONS)
    for metric in ('coco/bbox_mAP', 'coco/segm_mAP'):
        validated = [entry[metric] for entry in logged if metric in entry]
        assert len(validated) == 2
        value = float(re.findall(rf'{metric}: ([-0-9.]+)', tested)[-1])
        assert value == pytest.approx(validated[-1], abs=1e-4)
        assert 0 <= value <= 1
