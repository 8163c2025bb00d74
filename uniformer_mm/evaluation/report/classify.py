# SPDX-License-Identifier: Apache-2.0
"""The part of a report about images or videos with one class each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup

from ..metrics.views import fuse_views
from ..record import Record
from ..running.store import Stored
from . import images, page, plots

SHOWN_CLASSES = 30
SHOWN_ROWS = 15
SHOWN_SAMPLES = 8
_SUM_ERROR = 1e-3


@dataclass(frozen=True)
class Guess:
    """One sample's scores.

    Attributes:
        stored: The sample.
        label: True class.
        chances: Probability of each class.
    """

    stored: Stored
    label: int
    chances: np.ndarray

    @property
    def best(self) -> int:
        """Predicted class."""
        return int(self.chances.argmax())

    @property
    def right(self) -> bool:
        """Whether it is the true one."""
        return self.best == self.label

    @property
    def rank(self) -> int:
        """Place of the true class, 1 is the first."""
        return 1 + int((self.chances > self.chances[self.label]).sum())


def read_guess(stored: Stored, fusion: str) -> Guess:
    """Scores from what the task's metric has kept."""
    result = stored.results[0]
    if 'logits' in result:
        scores = fuse_views(torch.from_numpy(result['logits']), fusion)
        chances = scores if fusion == 'prob' else scores.softmax(0)
        return Guess(stored, result['label'], chances.numpy())
    if 'pred' in result:  # mmaction2's AccMetric: as its head averages, logits or probabilities
        scores = torch.as_tensor(result['pred'])
        chances = bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < _SUM_ERROR
        return Guess(
            stored, int(result['label']), (scores if chances else scores.softmax(0)).numpy()
        )
    return Guess(stored, int(result['gt_label'].item()), result['pred_score'].numpy())


def class_names(record: Record, guesses: Sequence[Guess], known: Sequence[str]) -> list[str]:
    """Names of the classes: the data set's, or the folders', or numbers."""
    total = len(guesses[0].chances)
    names = list(known or record.classes)
    if len(names) == total:
        return names
    folders: dict[int, set[str]] = {}
    for guess in guesses:
        folders.setdefault(guess.label, set()).add(guess.stored.key.split('/')[0])
    return [
        next(iter(folders[i])) if len(folders.get(i, ())) == 1 and total > 1
        and len({next(iter(f)) for f in folders.values()}) > 1 else f'class {i}'
        for i in range(total)
    ]  # fmt: skip


def sections(record: Record, stored: Sequence[Stored], known: Sequence[str]) -> list[Markup]:
    """Confusions, classes, worst and best samples.

    Args:
        record: The test's record.
        stored: Its samples.
        known: Names of the classes where the data set has a fixed order.
    """
    fusion = record.protocol.get('fusion', 'logits')
    guesses = [read_guess(sample, fusion) for sample in stored]
    names = class_names(record, guesses, known)
    confusion = np.zeros((len(names), len(names)), int)
    for guess in guesses:
        confusion[guess.label, guess.best] += 1
    return [
        page.section('Confusion matrix', _heatmap(confusion, names)),
        page.section('Classes', _classes(confusion, names, guesses)),
        page.section('Worst: sure and wrong', _gallery(_worst(guesses), names, record)),
        page.section('Best: sure and right', _gallery(_best(guesses), names, record)),
    ]


def _heatmap(confusion_KK: np.ndarray, names: Sequence[str]) -> Markup:
    wrong = confusion_KK.copy()
    np.fill_diagonal(wrong, 0)
    present = np.flatnonzero(confusion_KK.sum(0) + confusion_KK.sum(1))
    mistakes = (wrong.sum(0) + wrong.sum(1))[present]
    words = ''
    if len(present) > SHOWN_CLASSES:
        present = present[np.argsort(-mistakes, kind='stable')[:SHOWN_CLASSES]]
        words = (
            f'The {SHOWN_CLASSES} of {len(names)} classes with the most mistakes; shares are of '
            'all samples of the true class.'
        )
    figure = page.image(
        plots.confusion_heatmap(confusion_KK, names, np.sort(present)), words, kind='png'
    )
    pairs = [
        (names[t], names[g], wrong[t, g], f'{100 * wrong[t, g] / confusion_KK[t].sum():.0f} %')
        for t, g in zip(*np.nonzero(wrong), strict=True)
    ]
    pairs.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
    table = page.table(('true', 'predicted', 'times', 'of the class'), pairs[:SHOWN_ROWS])
    return page.columns(figure, Markup('<h3>Most frequent mistakes</h3>') + table)


def _classes(confusion_KK: np.ndarray, names: Sequence[str], guesses: Sequence[Guess]) -> Markup:
    top5 = Counter(guess.label for guess in guesses if guess.rank <= 5)
    rows = []
    for index in np.flatnonzero(confusion_KK.sum(1)):
        total, hits = confusion_KK[index].sum(), confusion_KK[index, index]
        others = confusion_KK[index].copy()
        others[index] = 0
        mistaken = names[others.argmax()] if others.any() else ''
        share, share5 = 100 * hits / total, 100 * top5[index] / total
        rows.append((names[index], total, f'{share:.1f}', f'{share5:.1f}', mistaken))
    rows.sort(key=lambda row: (float(row[2]), row[0]))
    headings = ('class', 'samples', 'top-1 %', 'top-5 %', 'most often taken for')
    worst = page.table(headings, rows[:SHOWN_ROWS])
    if len(rows) <= SHOWN_ROWS:
        return worst
    best = page.table(headings[:4], [row[:4] for row in rows[: -SHOWN_ROWS - 1 : -1]])
    return page.columns(
        Markup('<h3>Lowest accuracy</h3>') + worst, Markup('<h3>Highest accuracy</h3>') + best
    )


def _worst(guesses: Sequence[Guess]) -> list[Guess]:
    wrong = [guess for guess in guesses if not guess.right]
    return sorted(wrong, key=lambda guess: -guess.chances.max())[:SHOWN_SAMPLES]


def _best(guesses: Sequence[Guess]) -> list[Guess]:
    right = [guess for guess in guesses if guess.right]
    return sorted(right, key=lambda guess: -guess.chances.max())[:SHOWN_SAMPLES]


def _gallery(chosen: Sequence[Guess], names: Sequence[str], record: Record) -> Markup:
    if not chosen:
        return page.note('There is none.')
    video = record.task == 'video'
    figures = []
    for guess in chosen:
        path = Path(guess.stored.path)
        image = images.frame_strip(path) if video else images.load(path)
        words = f'{names[guess.best]} ({guess.chances.max():.0%})'
        if not guess.right:
            words = f'predicted {words}, true {names[guess.label]} (place {guess.rank})'
        caption = f'{words} — {guess.stored.key}'
        figures.append(page.image(images.jpeg(image, 720 if video else 360), caption))
    return page.gallery(figures, wide=video)
