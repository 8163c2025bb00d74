# SPDX-License-Identifier: Apache-2.0
"""Figures of the measured rows."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from .rows import Row


def formats() -> list[str]:
    """Endings of the files that can be written, without the dot."""
    return sorted(Figure().canvas.get_supported_filetypes())


def bars(rows: list[Row], path: Path) -> None:
    """Median time of each variant, workloads below each other, with quartiles."""
    rows = [row for row in rows if not row.refused]
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(rows)), layout='constrained')
    axes = figure.subplots()
    medians = [row.median_ms for row in rows]
    spread = [[r.median_ms - r.low_ms for r in rows], [r.high_ms - r.median_ms for r in rows]]
    spread = [[max(value, 0) for value in side] for side in spread]
    variants = sorted({row.variant for row in rows})
    colours = [f'C{variants.index(row.variant)}' for row in rows]
    axes.barh(range(len(rows)), medians, xerr=spread, color=colours)
    axes.set_yticks(range(len(rows)), [f'{row.work}\n{row.variant}' for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel('ms, median and quartiles')
    figure.savefig(path)


def curves(rows: list[Row], scale: str, path: Path) -> None:
    """Time against one size, a line for each variant, attention, dtype and mode."""
    at = {'resolution': -1, 'frames': 1, 'batch': 0}[scale]
    lines: dict[tuple, list[tuple[int, float]]] = {}
    for row in rows:
        if not row.refused:
            work = row.work
            key = (work.task, work.arch, row.variant, work.attention, work.dtype, work.mode)
            lines.setdefault(key, []).append((work.shape[at], row.median_ms))
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    for key, points in lines.items():
        axes.loglog(*zip(*sorted(points), strict=True), marker='o', label=' '.join(key))
    axes.set_xlabel(scale)
    axes.set_ylabel('ms, median')
    axes.grid(True, which='both', alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path)


def losses(curves: dict[str, list[float]], path: Path) -> None:
    """Loss of each step, faint, and its mean over the last twentieth of the steps."""
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    for index, (name, values) in enumerate(curves.items()):
        span = max(len(values) // 20, 1)
        means = [
            sum(values[max(0, i - span + 1) : i + 1]) / min(span, i + 1) for i in range(len(values))
        ]
        axes.plot(values, color=f'C{index}', alpha=0.25, linewidth=0.8)
        axes.plot(means, color=f'C{index}', label=name)
    axes.set_xlabel('step')
    axes.set_ylabel('loss')
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.savefig(path)
