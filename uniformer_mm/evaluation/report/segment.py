# SPDX-License-Identifier: Apache-2.0
"""The part of a report about label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from mmengine.config import Config

from ..metrics.confusion import image_confusion, image_labels, iou_summary
from ..record import Record
from ..running.store import Stored
from . import images, page, plots
from .classify import SHOWN_CLASSES, SHOWN_ROWS

SHOWN_IMAGES = 6


def sections(record: Record, stored: Sequence[Stored], config: Config) -> list[Markup]:
    """Classes, confusions, worst and best images.

    Args:
        record: The test's record.
        stored: Its samples.
        config: Its configuration, which says where the true label maps are.

    Raises:
        ValueError: The test was run with the toolbox's own metric, which keeps no label maps.
    """
    if not isinstance(stored[0].results[0], dict):
        raise ValueError(
            'the test ran with --stock, which keeps no label maps; run it again without.'
        )
    names = record.classes
    confusion = sum(image_confusion(sample.results[0], len(names)) for sample in stored)
    scored = []
    for sample in stored:
        ious = iou_summary(image_confusion(sample.results[0], len(names)))['IoU']
        scored.append((100 * float(np.nanmean(ious)), sample))
    scored.sort(key=lambda pair: (pair[0], pair[1].key))
    truth = _TruthMaps(config)
    shown = min(SHOWN_IMAGES, -(-len(scored) // 2))
    worst, best = scored[:shown], scored[shown:][::-1][:shown]
    return [
        page.section('Classes', _classes(confusion, names)),
        page.section('Confusion matrix', _heatmap(confusion, names)),
        page.section('Worst images', _gallery(worst, truth, names)),
        page.section('Best images', _gallery(best, truth, names)),
    ]


def _classes(confusion_KK: np.ndarray, names: Sequence[str]) -> Markup:
    summary = iou_summary(confusion_KK)
    shares = 100 * confusion_KK.sum(1) / confusion_KK.sum()
    colours_BGR = images.palette(len(names))
    rows = [
        (
            page.swatch(*colours_BGR[i][::-1], names[i]),
            f'{100 * summary["IoU"][i]:.1f}',
            f'{100 * summary["Acc"][i]:.1f}' if shares[i] else '-',
            f'{shares[i]:.2f}',
        )
        # A class that is nowhere true and somewhere predicted has IoU 0, which the mean counts.
        for i in np.flatnonzero(confusion_KK.sum(0) + confusion_KK.sum(1))
    ]
    rows.sort(key=lambda row: (float(row[1]), row[0]))
    headings = ('class', 'IoU %', 'accuracy %', '% of pixels')
    if len(rows) <= 2 * SHOWN_ROWS:
        return page.table(headings, rows[::-1])
    return page.columns(
        Markup('<h3>Highest IoU</h3>') + page.table(headings, rows[: -SHOWN_ROWS - 1 : -1]),
        Markup('<h3>Lowest IoU</h3>') + page.table(headings, rows[:SHOWN_ROWS]),
    )


def _heatmap(confusion_KK: np.ndarray, names: Sequence[str]) -> Markup:
    pixels = confusion_KK.sum(0) + confusion_KK.sum(1)
    present = np.flatnonzero(pixels)
    words = 'Shares are of all pixels of the true class.'
    if len(present) > SHOWN_CLASSES:
        largest = np.argsort(-pixels[present], kind='stable')
        present = np.sort(present[largest[:SHOWN_CLASSES]])
        words = f'The {SHOWN_CLASSES} classes with the most pixels. {words}'
    figure = plots.confusion_heatmap(confusion_KK, names, present)
    wrong = confusion_KK.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:SHOWN_ROWS]
    pairs = []
    for true, guess in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, guess]:
            share = f'{100 * wrong[true, guess] / confusion_KK[true].sum():.0f} %'
            pairs.append((names[true], names[guess], f'{wrong[true, guess]:,}', share))
    table = page.table(('true', 'predicted', 'pixels', 'of the class'), pairs)
    return page.columns(
        page.image(figure, words, kind='png'),
        Markup('<h3>Most frequent mistakes</h3>') + table,
    )


class _TruthMaps:
    """Reads true label maps as the test's data set does."""

    def __init__(self, config: Config) -> None:
        dataset = config.test_dataloader.dataset
        root = Path(dataset.get('data_root') or '')
        self.images = root / dataset.data_prefix.img_path
        self.maps = root / dataset.data_prefix.seg_map_path
        self.shifted = bool(dataset.get('reduce_zero_label'))

    def read(self, path: Path) -> np.ndarray | None:
        file = (self.maps / path.relative_to(self.images)).with_suffix('.png')
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if labels is None or not self.shifted:
            return labels
        return np.where(labels == 0, 255, labels - 1).astype(np.uint8)


def _gallery(
    scored: Sequence[tuple[float, Stored]], truth: _TruthMaps, names: Sequence[str]
) -> Markup:
    if not scored:
        return page.note('There are no other images.')
    figures = []
    for iou, sample in scored:
        path = Path(sample.path)
        photo, labels = images.load(path), truth.read(path)
        guess = image_labels(sample.results[0])
        parts = [photo]
        if labels is not None and labels.shape == guess.shape:
            parts.append(images.label_map(photo, labels, len(names)))
            guess = np.where(labels == 255, 255, guess)
        parts.append(images.label_map(photo, guess, len(names)))
        strip = images.jpeg(images.beside(parts), 1080)
        figures.append(page.image(strip, f'{sample.key}: mean IoU {iou:.1f} %'))
    return page.note('Photo, truth, prediction; ignored pixels are grey.') + page.gallery(
        figures, wide=True
    )
