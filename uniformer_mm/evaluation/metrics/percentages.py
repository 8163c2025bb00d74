# SPDX-License-Identifier: Apache-2.0
"""The toolboxes' metrics by the zoo's names, in percent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

# Zoo's name of a metric: the toolbox's, and the factor that makes it a percentage.
_METRICS = {
    'cls': {'top1': ('accuracy/top1', 1), 'top5': ('accuracy/top5', 1)},
    'det': {'bbox_mAP': ('coco/bbox_mAP', 100), 'segm_mAP': ('coco/segm_mAP', 100)},
    'seg': {'mIoU': ('mIoU', 1), 'aAcc': ('aAcc', 1), 'mAcc': ('mAcc', 1)},
    'pose': {
        'AP': ('coco/AP', 100),
        'AP50': ('coco/AP .5', 100),
        'AP75': ('coco/AP .75', 100),
        'APM': ('coco/AP (M)', 100),
        'APL': ('coco/AP (L)', 100),
        'AR': ('coco/AR', 100),
    },
    'video': {
        'top1': ('acc/top1', 100),
        'top5': ('acc/top5', 100),
        'mean1': ('acc/mean1', 100),
        'top1_prob': ('acc/top1_prob', 100),
        'top1_logits': ('acc/top1_logits', 100),
    },
}


def percentages(
    config: Config, task: str, metrics: Mapping[str, float], folder: Path
) -> dict[str, float]:
    """Metrics as the zoo names and counts them.

    A detector that found nothing has an AP of 0: all annotated objects are missed. mmdet reports
    no metrics then.

    Args:
        config: Configuration of the test.
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        metrics: The toolbox's.
        folder: Folder of the test.

    Raises:
        ValueError: None of the metrics is known.
    """
    if task == 'det' and not metrics and found_nothing(folder):
        kinds = config.test_evaluator.metric
        kinds = [kinds] if isinstance(kinds, str) else kinds
        metrics = {f'coco/{kind}_mAP': 0.0 for kind in kinds}
    multi_scale = 'module' in config.model
    found = {}
    for name, (key, factor) in _METRICS[task].items():
        if key in metrics and metrics[key] >= 0:  # COCO gives -1 where nothing is annotated
            name = 'mIoU_ms' if name == 'mIoU' and multi_scale else name
            found[name] = round(metrics[key] * factor, 4)
    if not found:
        raise ValueError(f'the test reported {sorted(metrics)}, none of which is known here.')
    return found


def found_nothing(folder: Path) -> bool:
    """Whether a detection test wrote an empty list of boxes."""
    path = folder / 'predictions.bbox.json'
    # The file of a whole test has hundreds of megabytes.
    return path.is_file() and path.stat().st_size < 8 and json.loads(path.read_text()) == []
