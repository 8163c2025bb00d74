# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``submit`` and ``score`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..labels import CLASS_ORDERS
from .ade20k import write_ade20k
from .ade20k_score import score_ade20k
from .check import TASKS, check_file
from .coco import write_coco
from .coco_check import FILE_TYPES, TEST_SETS
from .coco_score import ENGINES, score_coco
from .findings import Findings
from .kinetics import choose_order, write_kinetics
from .official import read_coco_images, read_image_stems, read_videos
from .servers import servers
from .ssv2 import write_ssv2
from .video_score import score_kinetics, score_ssv2
from .video_scores import read_video_scores

_HELP = {
    'coco-det': ('boxes of COCO', "JSON of boxes (mmdet's P.bbox.json)"),
    'coco-segm': ('masks of COCO', "JSON of masks (mmdet's P.segm.json)"),
    'coco-keypoints': ('keypoints of COCO', "JSON of keypoints (mmpose's P.keypoints.json)"),
    'ade20k': ('label maps of ADE20K', "folder of PNG files (mmseg's IoUMetric output_dir)"),
    'kinetics': ('Kinetics-400 or -600', "scores: DumpResults' .pkl, .npz or .json"),
    'ssv2': ('Something-Something V2', "scores: DumpResults' .pkl, .npz or .json"),
}


def add_submit_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``submit``."""
    parser = subparsers.add_parser(
        'submit',
        help='write or check a leaderboard file',
        description='Write the file that a leaderboard asks for, from saved predictions; '
        'or check any such file offline (exit status 1 if something is wrong).',
    )
    parser.add_argument('--check', metavar='FILE', dest='checked', help='leaderboard file to check')
    parser.add_argument(
        '--ids', metavar='LIST', dest='check_ids', help='with --check: the official list of ids'
    )
    parser.add_argument(
        '--task', choices=TASKS, dest='check_task', help='with --check: what the file is'
    )
    parser.set_defaults(run=_check)
    tasks = parser.add_subparsers(metavar='TASK')
    for task in TASKS:
        _add_writer(tasks, task)
    return parser


def _add_writer(tasks: _SubParsersAction, task: str) -> None:
    summary, predictions = _HELP[task]
    parser = tasks.add_parser(task, help=summary, description=f'Leaderboard file for {summary}.')
    parser.add_argument('predictions', metavar='PREDICTIONS', help=predictions)
    parser.add_argument(
        '--ids', required=True, metavar='LIST', help='the official list: ' + _IDS_HELP[task]
    )
    parser.add_argument('--name', required=True, help='name of the entry, for the file name')
    parser.add_argument('--output', required=True, metavar='DIR', help='folder to write into')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    if task in FILE_TYPES:
        parser.add_argument('--test-set', choices=TEST_SETS, default='test-dev2017')
        parser.add_argument(
            '--decimals', type=int, help='of coordinates; 1 for boxes, 0 for keypoints'
        )
    elif task == 'ade20k':
        parser.add_argument(
            '--add-one', action='store_true', help='the labels are class indices from 0'
        )
    else:
        _add_score_options(parser)
    if task == 'kinetics':
        external = parser.add_mutually_exclusive_group(required=True)
        external.add_argument(
            '--external-data', metavar='TEXT', help='what was used beside Kinetics'
        )
        external.add_argument('--no-external-data', action='store_true')
        parser.add_argument('--class-order', choices=CLASS_ORDERS, help='order of the scores')
    parser.set_defaults(run=_submit, task=task)


_IDS_HELP = {
    **dict.fromkeys(FILE_TYPES, 'image_info_test-dev2017.json (or annotations)'),
    'ade20k': 'folder of the test images, or a file of their names',
    'kinetics': 'csv or JSON of the test videos, or a text list',
    'ssv2': 'JSON of the test videos, or a text list',
}


def add_score_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``score``."""
    parser = subparsers.add_parser(
        'score',
        help='score predictions where the labels are public',
        description="A benchmark's own metric of saved predictions or of a leaderboard file.",
    )
    tasks = parser.add_subparsers(metavar='TASK', required=True)
    for task in TASKS:
        summary, predictions = _HELP[task]
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
            _add_score_options(task_parser)
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


def _add_score_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--tested-list', metavar='LIST', help='list that was tested, for a .pkl without names'
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='go on although videos are missing'
    )


def _check(args: Namespace) -> int:
    if args.checked is None:
        raise ValueError(f'name a task ({", ".join(TASKS)}) or a file: --check FILE.')
    task, findings = check_file(args.checked, ids=args.check_ids, task=args.check_task)
    console = _console()
    for line in findings.lines():
        console.print(line, markup=False)
    _print_notes(console, findings)
    verdict = f'{findings.count:,} faults' if findings.count else 'nothing wrong was found'
    colour = 'red' if findings.count else 'green'
    console.print(f'[bold {colour}]{escape(args.checked)} ({task}): {verdict}[/]')
    _print_server(console, task)
    return 1 if findings.count else 0


def _submit(args: Namespace) -> int:
    target, findings = _WRITERS[args.task](args, Path(args.predictions))
    console = _console()
    _print_notes(console, findings)
    console.print(f'[bold]written[/] {escape(str(target))}')
    _print_server(console, args.task)
    return 0


def _write_coco(args: Namespace, predictions: Path) -> tuple[Path, Findings]:
    return write_coco(
        predictions,
        args.task,
        read_coco_images(args.ids),
        args.output,
        algorithm=args.name,
        test_set=args.test_set,
        decimals=args.decimals,
        overwrite=args.overwrite,
    )


def _write_ade20k(args: Namespace, predictions: Path) -> tuple[Path, Findings]:
    return write_ade20k(
        predictions,
        read_image_stems(args.ids),
        args.output,
        algorithm=args.name,
        add_one=args.add_one,
        overwrite=args.overwrite,
    )


def _write_kinetics(args: Namespace, predictions: Path) -> tuple[Path, Findings]:
    scores = read_video_scores(predictions, order_file=args.tested_list)
    return write_kinetics(
        scores,
        choose_order(scores.class_order, args.class_order, scores.source),
        list(read_videos(args.ids)),
        args.output,
        algorithm=args.name,
        external_data=args.external_data,
        allow_missing=args.allow_missing,
        overwrite=args.overwrite,
    )


def _write_ssv2(args: Namespace, predictions: Path) -> tuple[Path, Findings]:
    return write_ssv2(
        read_video_scores(predictions, order_file=args.tested_list),
        list(read_videos(args.ids)),
        args.output,
        algorithm=args.name,
        allow_missing=args.allow_missing,
        overwrite=args.overwrite,
    )


_WRITERS: dict[str, Callable[[Namespace, Path], tuple[Path, Findings]]] = {
    **dict.fromkeys(FILE_TYPES, _write_coco),
    'ade20k': _write_ade20k,
    'kinetics': _write_kinetics,
    'ssv2': _write_ssv2,
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


def _print_metrics(metrics: dict[str, float], findings: Findings) -> int:
    console = _console()
    width = max(map(len, metrics))
    for name, value in metrics.items():
        text = f'{value:,.0f}' if name in ('images', 'videos', 'classes') else f'{value:.2f}'
        console.print(f'[bold]{name.ljust(width)}[/]  {text}')
    _print_notes(console, findings)
    return 0


def _print_notes(console: Console, findings: Findings) -> None:
    for note in findings.notes:
        console.print(f'note: {note}', markup=False)


def _print_server(console: Console, task: str) -> None:
    for line in servers()[task].lines():
        console.print(line, markup=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
