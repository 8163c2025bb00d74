# SPDX-License-Identifier: Apache-2.0
"""Label maps of a segmentation test as ADE20K's leaderboard wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from PIL import Image

from ...files import replacing
from ...registry import METRICS, register


@register(METRICS)
class LabelMaps(BaseMetric):
    """Writes each prediction as an 8-bit PNG of class index + 1, under the image's stem.

    mmseg's ``IoUMetric(format_only=True)`` writes the same for data sets that say
    ``reduce_zero_label``, and class indices for others; and it keeps nothing of a sample, so that
    an interrupted test could not go on.

    Args:
        output_dir: Folder for the PNG files; made if need be.
        prefix: See mmengine's ``BaseMetric``; there are no metrics.
    """

    def __init__(self, output_dir: str, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.output_dir = Path(output_dir)
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Write the label maps of a batch.

        Args:
            data_batch: Not used.
            data_samples: With ``pred_sem_seg`` (``data [1, H, W]``) and ``img_path``.
        """
        for sample in data_samples:
            labels_HW = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy()
            name = f'{Path(sample["img_path"]).stem}.png'
            image = Image.fromarray((labels_HW + 1).astype(np.uint8))
            with replacing(self.output_dir / name) as temporary:
                image.save(temporary, format='PNG')
            self.results.append({'label_map': name})

    def compute_metrics(self, results: list) -> dict[str, float]:
        """There are none: the labels of the test set are not public."""
        return {}
