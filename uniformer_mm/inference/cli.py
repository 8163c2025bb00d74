# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``predict`` of ``uniformer-mm``."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import plain_console, print_error

if TYPE_CHECKING:
    from .predictor import Outcome

_TASKS = ('det', 'seg', 'pose', 'video', 'cls')
_STEP = 50


def add_predict_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``predict``."""
    parser = subparsers.add_parser(
        'predict',
        description='Predict images and clips, draw what is seen and write the numbers. Exit '
        'status: 0; 1 if an input cannot be read; 2 for a mistake in the request.',
    )
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='image, clip, folder, pattern, - (an image on standard input) or number of a camera',
    )
    parser.add_argument(
        '--model', metavar='ROW|CONFIG', help='row of uniformer-mm recipes, or a config file'
    )
    parser.add_argument(
        '--weights', metavar='FILE', help="checkpoint or uniformer://NAME (default: the row's own)"
    )
    parser.add_argument(
        '--task', choices=_TASKS, help='take its usual model (default: det, if nothing is named)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='DIR',
        help='folder for the results (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (default: the GPU if there is one)')
    precision = parser.add_mutually_exclusive_group()
    for name in ('fp16', 'bf16'):
        precision.add_argument(
            f'--{name}', dest='precision', action='store_const', const=name,
            help=f'compute in {name} (default: fp32)',
        )  # fmt: skip
    parser.add_argument(
        '--batch', type=int, default=1, metavar='N', help='images at a time (default: %(default)s)'
    )
    parser.add_argument(
        '--score', type=float, default=0.3, metavar='X',
        help='least score of what is drawn (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument('--classes', type=Path, metavar='FILE', help='class names, one a line')
    parser.add_argument(
        '--detector', metavar='ROW|CONFIG', help='what finds the persons for a pose model'
    )
    parser.add_argument('--detector-weights', metavar='FILE', help="the detector's checkpoint")
    parser.add_argument('--json', action='store_true', help='print the numbers on standard output')
    parser.set_defaults(run=_predict)
    return parser


def _predict(args: Namespace) -> int:
    import logging

    from .inputs import find_sources
    from .predictor import load_predictor
    from .writer import NUMBERS, Writer

    # mmengine tells where each value of a config came from.
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    classes = None
    if args.classes is not None:
        try:
            classes = args.classes.read_text(encoding='utf-8').split('\n')
        except OSError as error:
            raise ValueError(f'classes={str(args.classes)!r}: {error.strerror}.') from None
        classes = [name.strip() for name in classes if name.strip()]
    predictor = load_predictor(
        args.model,
        args.weights,
        task=args.task,
        device=args.device,
        precision=args.precision,
        classes=classes,
        detector=args.detector,
        detector_weights=args.detector_weights,
    )
    report = plain_console(stderr=args.json)
    if not args.json and not sys.stdout.isatty():
        # A bar on a terminal takes over sys.stdout; what goes to a file shall go there.
        report.file = sys.stdout
    sources = list(find_sources([_camera(item) for item in args.inputs]))
    unread, interrupted = 0, False
    with Writer(args.out, predictor, args.score) as writer:
        try:
            for outcome in _shown(predictor.stream(iter(sources), args.batch), len(sources)):
                if outcome.result is None:
                    unread += 1
                    print_error(outcome.error)
                    continue
                path = writer.add(outcome)
                if path is not None:
                    report.print(
                        f'{outcome.result.name}: {summary(outcome.result)}  {path}', markup=False
                    )
        except KeyboardInterrupt:
            # The way to stop a camera.
            interrupted = True
    if args.json:
        sys.stdout.write(json.dumps(writer.numbers(), ensure_ascii=False) + '\n')
    if unread < len(sources):
        report.print(f'Numbers: {args.out / NUMBERS}', markup=False)
    if unread:
        print_error(f'{unread} of {len(sources)} inputs could not be read.')
    return 130 if interrupted else min(unread, 1)


def _camera(item: str) -> str | int:
    return int(item) if item.isdecimal() and not Path(item).exists() else item


def summary(result: Any) -> str:
    """A result in a few words."""
    from .results import Classification, Detections, LabelMap

    if isinstance(result, Classification):
        return ', '.join(f'{name} {share:.0%}' for name, share in result.top(3))
    if isinstance(result, LabelMap):
        shares = Counter(result.to_dict()['shares'])
        return ', '.join(f'{name} {share:.0%}' for name, share in shares.most_common(4))
    if isinstance(result, Detections):
        kept = [result.classes[i] for i in result.labels[result.scores >= result.drawn_score]]
        counts = Counter(kept).most_common()
        return ', '.join(f'{count} {name}' for name, count in counts) or 'nothing'
    count = len(result.boxes)
    return f'{count} {"person" if count == 1 else "persons"}'


def _shown(outcomes: Iterator[Outcome], total: int) -> Iterable[Outcome]:
    """The outcomes, with a bar on a terminal, else a line for every fifty frames of a clip."""
    console = plain_console(stderr=True)
    if console.is_terminal:
        from ..console import progress_bars

        with progress_bars(console) as bars:
            bar, source = bars.add_task('input', total=total), None
            for outcome in outcomes:
                if outcome.source is not source:
                    bars.advance(bar, 0 if source is None else 1)
                    source = outcome.source
                if outcome.frame is not None:
                    bars.update(bar, description=f'frame {outcome.frame}')
                yield outcome
            bars.update(bar, completed=total)
        return
    for outcome in outcomes:
        if outcome.frame and outcome.frame % _STEP == 0:
            console.print(f'{outcome.source.name}: {outcome.frame} frames', markup=False)
            console.file.flush()
        yield outcome
