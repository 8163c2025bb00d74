# SPDX-License-Identifier: Apache-2.0
"""The curves of a training: its loss, and what it reached on the validation split."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use('Agg')
from matplotlib import pyplot as plt


def read_scalars(work: Path) -> list[dict]:
    """Everything that trainings in a work folder logged, in order; tests are left out."""
    files = sorted(work.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def draw_curves(scalars: list[dict], metrics: dict[str, str], path: Path) -> None:
    """Write an image of loss and metrics over the steps of a training.

    Args:
        scalars: Lines of mmengine's ``scalars.json``; a validation names its epoch or iteration as
            ``step``, or, where its file counts epochs, the training's lines of it do.
        metrics: Metrics to draw, and their names for people.
        path: The PNG file.
    """
    losses = [(one['step'], one['loss']) for one in scalars if 'loss' in one]
    steps, values = np.array(losses, dtype=float).reshape(-1, 2).T
    tested = [one for one in scalars if 'loss' not in one and any(key in one for key in metrics)]
    by_epoch = {one['epoch']: one['step'] for one in scalars if 'loss' in one and 'epoch' in one}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(steps, values, color='#b8cbe8', linewidth=1)
    left.plot(steps, smoothed(values), color='#1f4fa3', linewidth=2)
    left.set(xlabel='iteration', ylabel='loss', title='training loss')
    left.set_ylim(0, np.percentile(values, 98) * 1.1 if len(values) else 1)
    for key, label in metrics.items():
        points = [
            (by_epoch.get(one['step'], one['step']), one[key]) for one in tested if key in one
        ]
        if points:
            right.plot(*zip(*points, strict=True), marker='o', label=label)
    right.set(xlabel='iteration', title='validation')
    if right.lines:
        right.legend()
        right.set_ylim(0)
    for axis in (left, right):
        axis.set_xlim(0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    partial = path.with_suffix('.partial.png')
    figure.savefig(partial, dpi=110)
    plt.close(figure)
    partial.replace(path)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Each value's mean with those around it, a tenth of all."""
    reach = max(1, len(values) // 20)
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])
