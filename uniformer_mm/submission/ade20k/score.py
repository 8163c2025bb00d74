# SPDX-License-Identifier: Apache-2.0
"""The challenge's score of label maps on ADE20K's validation set.

Source: CSAILVision/sceneparsing: score = (pixel accuracy + mean IoU) / 2, both without the pixels
whose ground truth is 0. The mean runs over the classes that occur in the truth or the prediction,
which are all 150 on the whole validation set; on a part of it the official code would count absent
classes as 0.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..issues import Issues
from ..official import read_image_stems
from ..reading import open_members
from .archive import CLASSES, check_ade20k, read_label_map

_PERCENT = 100


def score_ade20k(
    predictions: str | PathLike, annotations: str | PathLike, *, add_one: bool = False
) -> tuple[dict[str, float], Issues]:
    """Pixel accuracy, mean IoU and their mean, in percent.

    Args:
        predictions: Folder or archive of label maps, one for each annotation.
        annotations: Folder of ``ADE_val_00000001.png`` ..., 0 = other, 1..150 = classes.
        add_one: The predictions are class indices from 0.

    Returns:
        ``pixel_accuracy``, ``mIoU``, ``score``, and the numbers ``images`` and ``classes`` that
        they rest on; notes.

    Raises:
        ValueError: Predictions of other images, of other sizes or with other labels.
    """
    stems = read_image_stems(annotations)
    members, truth = open_members(predictions), open_members(annotations)
    issues = Issues(str(predictions))
    check_ade20k(members, issues, stems=stems, add_one=add_one)
    issues.refuse('Nothing was scored.')
    side = CLASSES + 1
    counts = np.zeros(side * side, np.int64)
    for stem in stems:
        name = f'{stem}.png'
        truth_HW = read_label_map(truth.read(name))
        if truth_HW.max() > CLASSES:
            raise ValueError(
                f'{annotations}: {name} holds label {truth_HW.max()}, expected 0 to {CLASSES}.'
            )
        labels_HW = read_label_map(members.read(name)).astype(np.int64) + add_one
        counted = truth_HW > 0
        pairs = truth_HW[counted].astype(np.int64) * side + labels_HW[counted]
        counts += np.bincount(pairs, minlength=side * side)
    # [truth, prediction]; truth 0 was never counted, prediction 0 is wrong wherever it stands.
    counts = counts.reshape(side, side)
    hits = np.diag(counts)[1:]
    unions = counts.sum(axis=1)[1:] + counts.sum(axis=0)[1:] - hits
    occurring = unions > 0
    accuracy = hits.sum() / counts.sum()
    mean_iou = (hits[occurring] / unions[occurring]).mean()
    metrics = {
        'pixel_accuracy': float(accuracy) * _PERCENT,
        'mIoU': float(mean_iou) * _PERCENT,
        'score': float(accuracy + mean_iou) / 2 * _PERCENT,
        'images': float(len(stems)),
        'classes': float(occurring.sum()),
    }
    return metrics, issues
