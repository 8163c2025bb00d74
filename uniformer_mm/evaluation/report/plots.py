# SPDX-License-Identifier: Apache-2.0
"""Plots of a report as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_DPI = 120
_BLUE = '#2f6db5'


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_DPI, bbox_inches='tight')
    return buffer.getvalue()


def confusion_heatmap(
    confusion_KK: np.ndarray, names: Sequence[str], shown: Sequence[int]
) -> bytes:
    """Shares of each true class (a row) that were taken for each class, in percent.

    Args:
        confusion_KK: Counts of all classes, true class first.
        names: Of all classes.
        shown: Which classes to draw; shares are of everything that is of the true class.
    """
    totals = np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    shares = (100 * confusion_KK / totals)[np.ix_(shown, shown)]
    names = [names[i] for i in shown]
    side = min(8.5, 2.2 + 0.24 * len(names))
    figure = Figure(figsize=(side + 1, side))
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    labels = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=60, ha='right', fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xlabel('predicted')
    axes.set_ylabel('true')
    if len(names) <= 20:
        for row, column in zip(*np.nonzero(shares >= 0.5), strict=True):
            colour = 'white' if shares[row, column] > 55 else '#1c2430'
            axes.text(column, row, f'{shares[row, column]:.0f}', ha='center', va='center',
                      fontsize=7, color=colour)  # fmt: skip
    figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03, label='% of the true class')
    return _png(figure)


def precision_recall(recalls: np.ndarray, curves: dict[str, np.ndarray], title: str) -> bytes:
    """Precision over recall, one curve for each IoU threshold."""
    figure = Figure(figsize=(5, 3.9))
    axes = figure.add_subplot()
    for (name, precision), shade in zip(curves.items(), (1.0, 0.65, 0.4), strict=False):
        axes.plot(recalls, precision, label=name, color=_BLUE, alpha=shade, linewidth=2)
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _png(figure)


def histogram(values: Sequence[float], label: str) -> bytes:
    """How values are spread."""
    figure = Figure(figsize=(5, 2.9))
    axes = figure.add_subplot()
    bounds = (0.95 * min(values), 1.05 * max(values))
    axes.hist(values, bins=min(40, max(5, len(values) // 4)), range=bounds, color=_BLUE)
    axes.yaxis.set_major_locator(MaxNLocator(nbins='auto', integer=True))
    axes.set_axisbelow(True)
    axes.set(xlabel=label, ylabel='samples')
    axes.grid(axis='y', alpha=0.3)
    return _png(figure)


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + '…'
