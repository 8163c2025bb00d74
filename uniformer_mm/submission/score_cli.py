# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``score`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

from ..console import plain_console
from ..labels import CLASS_ORDERS
from .ade20k.score import score_ade20k
from .check import TASKS
from .coco.check import FILE_TYPES
from .coco.score import ENGINES, score_coco
from .issues import Issues
from .options import TASK_HELP, add_score_options, print_notes
from .video.score import score_kinetics, score_ssv2


def add_score_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``score``."""
    parser = subparsers.add_parser(
        'score',
        description="A benchmark's own metric of saved predictions or of a leaderboard file.",
    )
    tasks = parser.add_subparsers(metavar='TASK', required=True)
    for task in TASKS:
        summary, predictions = TASK_HELP[task]
        task_parser = tasks.add_parser(task, help=summary, description=f'Score {summary}.')
        task_parser.add_argument('predictions', metavar='PREDICTIONS', help=predictions)
        task_parser.add_argument(
            '--annotations', required=True, metavar='PATH', help=_TRUTH_HELP[task]
        )
        task_parser.set_defaults(run=_SCORERS[task], task=task)
        if task in FILE_TYPES:
            task_parser.add_argument('--engine', choices=list(ENGINES), default='pycocotools')
            task_parser.add_argument('--decimals', type=int, help='round coordinates first')
        elif task == 'ade20k':
            task_parser.add_argument('--add-one', action='store_true', help='labels are from 0')
        else:
            add_score_options(task_parser)
        if task == 'kinetics':
            task_parser.add_argument('--class-order', choices=CLASS_ORDERS, help='of the scores')
            task_parser.add_argument('--list-order', choices=CLASS_ORDERS, help='of class indices')
        elif task == 'ssv2':
            task_parser.add_argument('--labels', metavar='FILE', help='labels.json')
    return parser


_TRUTH_HELP = {
    **dict.fromkeys(FILE_TYPES, 'annotation file (val2017)'),
    'ade20k': 'folder of label maps (annotations/validation)',
    'kinetics': 'csv, JSON or text list of videos with labels',
    'ssv2': 'test-answers.csv, JSON or text list of videos with labels',
}


def _score_coco(args: Namespace) -> int:
    return _print_metrics(
        *score_coco(
            args.predictions,
            args.task,
            args.annotations,
            engine=args.engine,
            decimals=args.decimals,
        )
    )


def _score_ade20k(args: Namespace) -> int:
    return _print_metrics(*score_ade20k(args.predictions, args.annotations, add_one=args.add_one))


def _score_kinetics(args: Namespace) -> int:
    return _print_metrics(
        *score_kinetics(
            args.predictions,
            args.annotations,
            class_order=args.class_order,
            list_order=args.list_order,
            tested_list=args.tested_list,
            allow_missing=args.allow_missing,
        )
    )


def _score_ssv2(args: Namespace) -> int:
    return _print_metrics(
        *score_ssv2(
            args.predictions,
            args.annotations,
            label_file=args.labels,
            tested_list=args.tested_list,
            allow_missing=args.allow_missing,
        )
    )


_SCORERS = {
    **dict.fromkeys(FILE_TYPES, _score_coco),
    'ade20k': _score_ade20k,
    'kinetics': _score_kinetics,
    'ssv2': _score_ssv2,
}


def _print_metrics(metrics: dict[str, float], issues: Issues) -> int:
    to = plain_console()
    width = max(map(len, metrics))
    for name, value in metrics.items():
        text = f'{value:,.0f}' if name in ('images', 'videos', 'classes') else f'{value:.2f}'
        to.print(f'[bold]{name.ljust(width)}[/]  {text}')
    print_notes(to, issues)
    return 0
