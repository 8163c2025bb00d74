# SPDX-License-Identifier: Apache-2.0
"""Draw docs/architecture.svg: the rooms of the package, and who imports whom.

Run ``python tools/draw_architecture.py`` after a room came or went. Rooms, their order and the
imports are those that ``tests/test_imports.py`` holds, so the picture cannot say anything else.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use('svg')
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_imports import MODULES, ORDER, imported, place  # noqa: E402

# What a room is for, in the words of a newcomer's question.
NOTES = {
    'ops': 'operations without\na fast form in PyTorch',
    'layers': 'plain modules',
    'fast': 'everything\nabout speed',
    'models': "the paper's\nequations",
    'weights': 'files and the zoo',
    'recipes': 'the catalogue',
    'evaluation': "the papers' tests",
    'submission': 'leaderboard files',
    'inference': 'predict',
    'reliability': 'runs that\ncannot be lost',
    'datasets': 'transforms',
    'synth': 'the embedded world',
    'hooks': 'for the runner',
    'optim': 'optimizers',
    'env': 'doctor, repairs',
    'flops': 'counters',
}
NETWORK = {'ops', 'layers', 'fast', 'models'}
WIDTH, HEIGHT, GAP_X, GAP_Y = 2.3, 0.9, 0.45, 0.75


def rooms_and_arrows() -> tuple[list[list[str]], dict[str, int], set[tuple[str, str]]]:
    """Rows of rooms from bottom to top, lines of code by room, and pairs (importer, imported)."""
    lines: Counter[str] = Counter()
    arrows = set()
    names = set(MODULES)
    for name, path in MODULES.items():
        if not name:
            continue
        room = place(name)[1]
        lines[room] += len(path.read_text(encoding='utf-8').splitlines())
        arrows |= {(room, place(other)[1]) for other in imported(name, path, names) if other}
    rows = [[room for room in row if room in lines] for row in ORDER]
    return [row for row in rows if row], dict(lines), {(a, b) for a, b in arrows if a != b}


def draw(output: Path) -> None:
    """Write the picture."""
    rows, lines, arrows = rooms_and_arrows()
    # Helpers that everybody imports would hide the rest.
    hidden = {room for row in rows[:2] for room in row}
    widest = max(map(len, rows))
    figure, axes = plt.subplots(
        figsize=(1.05 * widest * WIDTH, len(rows) * (HEIGHT + GAP_Y) * 0.72)
    )
    centres = {}
    for y, row in enumerate(rows):
        left = (widest - len(row)) / 2 * (WIDTH + GAP_X)
        for x, room in enumerate(row):
            corner = left + x * (WIDTH + GAP_X), y * (HEIGHT + GAP_Y)
            colour = '#cfe3f5' if room in NETWORK else '#f1efe8'
            box = FancyBboxPatch(
                corner, WIDTH, HEIGHT, boxstyle='round,pad=0.04', fc=colour, ec='#555555', zorder=2
            )
            axes.add_patch(box)
            centres[room] = corner[0] + WIDTH / 2, corner[1] + HEIGHT / 2
            title = f'{room}  ({lines[room]:,} lines)'
            axes.text(
                *centres[room], _text(title, room), ha='center', va='center', size=8, zorder=3
            )
    for importer, other in sorted(arrows):
        if {importer, other} & hidden or importer.startswith(('cli', '__main__')):
            continue
        start, end = centres[importer], centres[other]
        axes.annotate(
            '',
            xy=(end[0], end[1] + HEIGHT / 2 + 0.05),
            xytext=(start[0], start[1] - HEIGHT / 2 - 0.05),
            arrowprops={'arrowstyle': '->', 'color': '#8899aa', 'lw': 0.8, 'shrinkA': 0},
            zorder=1,
        )
    axes.set_xlim(-0.3, widest * (WIDTH + GAP_X))
    axes.set_ylim(-0.3, len(rows) * (HEIGHT + GAP_Y))
    axes.axis('off')
    figure.savefig(output, bbox_inches='tight', metadata={'Date': None})
    plt.close(figure)


def _text(title: str, room: str) -> str:
    return f'{title}\n{NOTES[room]}' if room in NOTES else title


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path('docs') / 'architecture.svg'
    parser.add_argument('--output', type=Path, default=default, help='default: %(default)s')
    plt.rcParams['svg.hashsalt'] = 'uniformer_mm'
    draw(parser.parse_args().output)


if __name__ == '__main__':
    main()
