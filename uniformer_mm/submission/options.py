# SPDX-License-Identifier: Apache-2.0
"""What the subcommands ``submit`` and ``score`` share: names, options, output."""

from __future__ import annotations

from argparse import ArgumentParser

from rich.console import Console

from .issues import Issues

TASK_HELP = {
    'coco-det': ('boxes of COCO', "JSON of boxes (mmdet's P.bbox.json)"),
    'coco-segm': ('masks of COCO', "JSON of masks (mmdet's P.segm.json)"),
    'coco-keypoints': ('keypoints of COCO', "JSON of keypoints (mmpose's P.keypoints.json)"),
    'ade20k': ('label maps of ADE20K', "folder of PNG files (mmseg's IoUMetric output_dir)"),
    'kinetics': ('Kinetics-400 or -600', "scores: DumpResults' .pkl, .npz or .json"),
    'ssv2': ('Something-Something V2', "scores: DumpResults' .pkl, .npz or .json"),
}
"""Each task, and the predictions that it takes, in words."""


def add_score_options(parser: ArgumentParser) -> None:
    """Declare how saved scores of videos are read."""
    parser.add_argument(
        '--tested-list', metavar='LIST', help='list that was tested, for a .pkl without names'
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='go on although videos are missing'
    )


def print_notes(to: Console, issues: Issues) -> None:
    """Print what is no issue."""
    for note in issues.notes:
        to.print(f'note: {note}', markup=False)
