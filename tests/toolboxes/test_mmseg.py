# SPDX-License-Identifier: Apache-2.0
"""mmsegmentation end to end on real ADE20K photos, through ``mim`` as a user would run it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_dir
from .mim import read_scalars, run_mim

CONFIG = ROOT / 'configs/seg/quickstart.py'
ITERATIONS = 40

OPTIONS = {
    # ADE20K's own 150 classes.
    'model.decode_head.num_classes': 150,
    'train_dataloader.batch_size': 3,
    'param_scheduler.0.end': 5,
    'train_cfg.val_interval': ITERATIONS // 2,
    'default_hooks.checkpoint.interval': ITERATIONS // 2,
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
    """Three real photos in ADE20K's layout, the same ones for training and validation."""
    source = shared_dir('data', 'ade', 'ADEChallengeData2016').resolve()
    for kind in ('images', 'annotations'):
        folder = tmp_path / 'ade/ADEChallengeData2016' / kind
        folder.mkdir(parents=True)
        for split in ('training', 'validation'):
            (folder / split).symlink_to(source / kind / 'validation')
    return tmp_path


@pytest.mark.slow
def test_train_evaluate_save_resume_and_test(data_root: Path) -> None:
    pytest.importorskip('mmseg')
    half = ITERATIONS // 2
    run_mim('train', 'mmseg', CONFIG, data_root, **OPTIONS, **{'train_cfg.max_iters': half})
    assert (data_root / f'work/iter_{half}.pth').exists()

    longer = {'train_cfg.max_iters': ITERATIONS}
    resumed = run_mim('train', 'mmseg', CONFIG, data_root, '--resume', **OPTIONS, **longer)
    assert f'resumed epoch: 0, iter: {half}' in resumed
    checkpoint = data_root / f'work/iter_{ITERATIONS}.pth'

    logged = read_scalars(data_root)
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == ITERATIONS
    assert all(map(math.isfinite, losses))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])

    tested = run_mim('test', 'mmseg', CONFIG, data_root, '--checkpoint', str(checkpoint), **OPTIONS)
    for metric in ('aAcc', 'mIoU'):
        validated = [entry[metric] for entry in logged if metric in entry]
        assert len(validated) == 2
        value = float(re.findall(rf'{metric}: ([-0-9.]+)', tested)[-1])
        assert value == pytest.approx(validated[-1], abs=0.02)
    accuracy = float(re.findall(r'aAcc: ([-0-9.]+)', tested)[-1])
    assert accuracy > 30, 'three photos, seen twenty times and more'
