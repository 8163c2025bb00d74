# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``submit`` of ``uniformer-mm``."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.markup import escape

from ..console import plain_console, print_error, progress_bars
from ..evaluation.running.protocol import DATA_VARIABLE
from ..files import prepare
from ..labels import CLASS_ORDERS
from .ade20k.archive import write_ade20k
from .check import TASKS, check_file
from .coco.check import FILE_TYPES, TEST_SETS
from .coco.write import write_coco
from .issues import Issues
from .official import read_coco_images, read_image_stems, read_videos
from .options import TASK_HELP, add_score_options, print_notes
from .servers import servers
from .video.kinetics import choose_order, write_kinetics
from .video.predictions import read_video_scores
from .video.ssv2 import write_ssv2


def add_submit_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``submit``."""
    parser = subparsers.add_parser(
        'submit',
        description='Write the file that a leaderboard asks for, from saved predictions or from a '
        'test run; or check any such file offline (exit status 1 if something is wrong).',
    )
    parser.add_argument('--check', metavar='FILE', dest='checked', help='leaderboard file to check')
    parser.add_argument(
        '--ids',
        metavar='LIST',
        dest='check_ids',
        help='with --check: the official list of ids (default: its usual place below '
        f'{DATA_VARIABLE}, if it is there)',
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
    summary, predictions = TASK_HELP[task]
    parser = tasks.add_parser(task, help=summary, description=f'Leaderboard file for {summary}.')
    parser.add_argument('predictions', nargs='?', metavar='PREDICTIONS', help=predictions)
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
        add_score_options(parser)
    if task == 'kinetics':
        external = parser.add_mutually_exclusive_group(required=True)
        external.add_argument(
            '--external-data', metavar='TEXT', help='what was used beside Kinetics'
        )
        external.add_argument('--no-external-data', action='store_true')
        parser.add_argument('--class-order', choices=CLASS_ORDERS, help='order of the scores')
    _add_run_options(parser, task)
    parser.set_defaults(run=_submit, task=task)


def _add_run_options(parser: ArgumentParser, task: str) -> None:
    run = parser.add_argument_group('from a test run, in place of PREDICTIONS')
    run.add_argument('--config', metavar='ROW', help='row id of uniformer-mm recipes, or a config')
    run.add_argument('--weights', metavar='FILE', help="checkpoint (default: the row's own)")
    run.add_argument('--data', type=Path, help=f'root of the data sets ({DATA_VARIABLE}; data)')
    run.add_argument('--gpus', type=int, metavar='K', help='0: CPU (default: one if there is)')
    run.add_argument('--work-dir', type=Path, default=Path('work_dirs/submit'))
    run.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='K=V')
    if task == 'coco-keypoints':
        run.add_argument('--boxes', metavar='FILE', help='person detections of the test set')


_IDS_HELP = {
    **dict.fromkeys(FILE_TYPES, 'image_info_test-dev2017.json (or annotations)'),
    'ade20k': 'folder of the test images, or a file of their names',
    'kinetics': 'csv or JSON of the test videos, or a text list',
    'ssv2': 'JSON of the test videos, or a text list',
}


def _check(args: Namespace) -> int:
    if args.checked is None:
        raise ValueError(f'name a task ({", ".join(TASKS)}) or a file: --check FILE.')
    task, issues = check_file(
        args.checked, ids=args.check_ids, task=args.check_task, data=_default_data()
    )
    to = plain_console()
    for line in issues.lines():
        to.print(line, markup=False)
    print_notes(to, issues)
    verdict = f'{issues.count:,} issues' if issues.count else 'nothing wrong was found'
    colour = 'red' if issues.count else 'yellow' if issues.unchecked else 'green'
    if issues.unchecked:
        verdict += f'; {issues.unchecked} NOT checked (no --ids)'
    to.print(f'[bold {colour}]{escape(args.checked)} ({task}): {verdict}[/]')
    _print_server(to, task)
    return 1 if issues.count else 0


def _submit(args: Namespace) -> int:
    if (args.predictions is None) == (args.config is None):
        raise ValueError('name either saved PREDICTIONS or, for a test run, --config ROW.')
    prepare(Path(args.output) / '.writable', overwrite=True)
    notes: list[str] = []
    predictions = args.predictions
    if args.config is not None:
        from ..evaluation.running.launch import TestFailedError

        try:
            predictions, notes = _run_test(args)
        except TestFailedError as error:
            print_error(str(error), style='red')
            return 2
    target, issues = _WRITERS[args.task](args, Path(predictions))
    issues.notes[:0] = notes
    to = plain_console()
    print_notes(to, issues)
    to.print(f'[bold]written[/] {escape(str(target))}')
    _print_server(to, args.task)
    return 0


def _run_test(args: Namespace) -> tuple[Path, list[str]]:
    """Predictions of a test run, and notes; sets what the writer is told about their order."""
    # The toolboxes' runner is only needed here.
    from .predict import Request, run_submission_test

    request = Request(
        task=args.task,
        config=args.config,
        ids=Path(args.ids),
        data=args.data or _default_data(),
        weights=args.weights,
        boxes=Path(args.boxes) if getattr(args, 'boxes', None) else None,
        tested_list=Path(args.tested_list) if getattr(args, 'tested_list', None) else None,
        gpus=args.gpus,
        work_dir=args.work_dir,
        overrides=args.cfg_options,
    )
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    with progress_bars(plain_console()) as progress:
        bar = progress.add_task(args.config, total=None)
        found = run_submission_test(
            request, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    if found.class_order is not None:
        args.class_order = found.class_order
    args.tested_list = None  # the samples say which videos they are
    return found.path, found.notes


def _write_coco(args: Namespace, predictions: Path) -> tuple[Path, Issues]:
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


def _write_ade20k(args: Namespace, predictions: Path) -> tuple[Path, Issues]:
    return write_ade20k(
        predictions,
        read_image_stems(args.ids),
        args.output,
        algorithm=args.name,
        add_one=args.add_one,
        overwrite=args.overwrite,
    )


def _write_kinetics(args: Namespace, predictions: Path) -> tuple[Path, Issues]:
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


def _write_ssv2(args: Namespace, predictions: Path) -> tuple[Path, Issues]:
    return write_ssv2(
        read_video_scores(predictions, order_file=args.tested_list),
        list(read_videos(args.ids)),
        args.output,
        algorithm=args.name,
        allow_missing=args.allow_missing,
        overwrite=args.overwrite,
    )


_WRITERS: dict[str, Callable[[Namespace, Path], tuple[Path, Issues]]] = {
    **dict.fromkeys(FILE_TYPES, _write_coco),
    'ade20k': _write_ade20k,
    'kinetics': _write_kinetics,
    'ssv2': _write_ssv2,
}


def _default_data() -> Path:
    return Path(os.environ.get(DATA_VARIABLE, 'data'))


def _print_server(to: Console, task: str) -> None:
    for line in servers()[task].lines():
        to.print(line, markup=False)
