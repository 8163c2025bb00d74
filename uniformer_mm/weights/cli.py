# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``zoo``, ``inspect``, ``convert`` and ``verify`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..labels import CLASS_ORDERS
from ..models.arch import ARCHS
from .convert import TARGETS, convert_file
from .inspect import inspect_file
from .layouts import LAYOUTS
from .lookup import locate
from .verify import IMAGENET, TOLERANCE, verify_row
from .zoo import SCHEME, Row, find_row, percent, rows

_TABLE_WIDTH = 200
_TASKS = {
    'cls': 'image classification',
    'det': 'detection',
    'seg': 'segmentation',
    'pose': 'pose estimation',
    'video': 'video classification',
}
_ROW_HELP = 'row id, short name or file name of uniformer-mm zoo'


def add_zoo_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``zoo``."""
    parser = subparsers.add_parser('zoo', description='List the published checkpoints.')
    parser.add_argument('--task', choices=list(_TASKS), help='rows of this task only')
    datasets = sorted({row.dataset for row in rows()})
    parser.add_argument('--dataset', choices=datasets, help='rows trained or tested on it only')
    parser.add_argument('--arch', choices=list(ARCHS), help='rows of this arch only')
    released = parser.add_mutually_exclusive_group()
    released.add_argument('--released', action='store_true', default=None, help='can be had')
    released.add_argument(
        '--not-released', dest='released', action='store_false', help='published as numbers only'
    )
    parser.set_defaults(run=_list_zoo)
    actions = parser.add_subparsers(metavar='ACTION')
    show = actions.add_parser('show', help='all that is known about a row, and its hosts')
    show.add_argument('row', metavar='ROW', help=_ROW_HELP)
    show.set_defaults(run=_show_row)
    fetch = actions.add_parser('fetch', help='download a row into the cache')
    fetch.add_argument('row', metavar='ROW', help=_ROW_HELP)
    fetch.set_defaults(run=_fetch_row)
    return parser


def add_inspect_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``inspect``."""
    parser = subparsers.add_parser(
        'inspect',
        description='Say what is known about a checkpoint, what is not, and why.',
    )
    _add_source(parser)
    parser.set_defaults(run=_inspect)
    return parser


def add_convert_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``convert``."""
    parser = subparsers.add_parser(
        'convert',
        description='Rewrite a checkpoint in another key scheme, container or order of classes.',
    )
    _add_source(parser)
    parser.add_argument(
        '--to', required=True, choices=TARGETS, help='key scheme, or safetensors (keys stay)'
    )
    parser.add_argument('--output', help='path to write (default: beside the file)')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    parser.add_argument(
        '--class-order', choices=CLASS_ORDERS, help='order that the head has now, if not known'
    )
    parser.add_argument('--permute', choices=CLASS_ORDERS, help='order to bring the head into')
    parser.add_argument('--arch', choices=list(ARCHS), help='states arch and head_dim in the file')
    parser.set_defaults(run=_convert)
    return parser


def add_verify_parser(subparsers: _SubParsersAction) -> ArgumentParser:
    """Declare ``verify``."""
    parser = subparsers.add_parser(
        'verify',
        description="Measure a classification row's top-1 on ImageNet's validation images with its "
        'test protocol, without a toolbox. Exit status: 0 within the tolerance, or not comparable; '
        '1 outside; 2 a mistake in the request.',
    )
    parser.add_argument('row', metavar='ROW', help=f'of image classification; {_ROW_HELP}')
    parser.add_argument('--data', required=True, help='folder of images, one subfolder a class')
    parser.add_argument('--checkpoint', help="file to use instead of the row's own")
    parser.add_argument(
        '--classes', metavar='FILE', help='class ids of the subfolders, if they are not all'
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images; %(default)s')
    parser.add_argument(
        '--workers', type=int, default=2, help='processes that decode images; %(default)s'
    )
    parser.add_argument(
        '--device', default='cpu', help='where the network runs, as cuda; %(default)s'
    )
    parser.set_defaults(run=_verify)
    return parser


def _add_source(parser: ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='FILE', help=f'path or {SCHEME}NAME')
    parser.add_argument('--prefix', help="what stands before the trunk's keys")
    parser.add_argument('--ema', action='store_true', help='take the averaged weights')


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _list_zoo(args: Namespace) -> int:
    found = [
        row
        for row in rows()
        if (args.task is None or row.family.task == _TASKS[args.task])
        and args.dataset in (None, row.dataset)
        and args.arch in (None, row.arch)
        and args.released in (None, row.released)
    ]
    table = Table('row', 'name', 'arch', 'head_dim', 'input', 'published', box=None)
    for row in found:
        name = row.name if row.released else 'not released'
        table.add_row(
            row.id, name, row.arch, str(row.head_dim), _input_words(row), _metric_words(row)
        )
    # Ids are there to be copied: rather wider than the terminal than shortened.
    console = Console(highlight=False, width=_TABLE_WIDTH)
    console.print(table)
    console.print(f'{len(found)} rows')
    return 0


def _show_row(args: Namespace) -> int:
    row = find_row(args.row)
    facts = [
        ('row', row.id),
        ('name', f'{SCHEME}{row.name or row.id}'),
        ('task', f'{row.family.task}, {row.dataset}'),
        ('arch', row.arch),
        ('head_dim', str(row.head_dim)),
        ('layer scale', row.scale_words),
        ('attention', row.attention or 'global'),
        ('input', _input_words(row)),
        ('normalisation', row.family.normalisation),
        ('class order', row.class_order or "the data set's own"),
        ('published', _metric_words(row)),
        ('container', f'{row.family.container} ({row.family.container_source})'),
        ('file', f'{row.file} (name: {row.file_source})' if row.released else 'not released'),
        ('licence', row.family.licence),
        ('source', f'{row.family.source}, {row.exp}' if row.exp else row.family.source),
    ]
    for host in row.hosts:
        note = f'; {host.note}' if host.note else ''
        facts.append(('host', f'{host.url} ({host.hash_words}{note})'))
    if row.log:
        facts.append(('training log', f'https://drive.google.com/file/d/{row.log}'))
    if row.family.drive_folder:
        folder = f'https://drive.google.com/drive/folders/{row.family.drive_folder}'
        facts.append(('folder', f'{folder} (Baidu code {row.family.baidu_code})'))
    print_facts(facts)
    return 0


def _fetch_row(args: Namespace) -> int:
    located = locate(f'{SCHEME}{args.row.removeprefix(SCHEME)}')
    print_facts([('file', str(located.path)), *located.digests.items()])
    return 0


def _inspect(args: Namespace) -> int:
    print_facts(inspect_file(args.checkpoint, prefix=args.prefix, ema=args.ema))
    return 0


def _convert(args: Namespace) -> int:
    path, record = convert_file(
        args.checkpoint,
        to=args.to,
        output=args.output,
        class_order=args.class_order,
        permute=args.permute,
        arch=args.arch,
        prefix=args.prefix,
        ema=args.ema,
        overwrite=args.overwrite,
    )
    facts = [('written', str(path)), *((name, str(value)) for name, value in record.items())]
    if args.to in LAYOUTS and LAYOUTS[args.to].differs:
        facts.append((f'{args.to} differs', LAYOUTS[args.to].differs))
    print_facts(facts)
    return 0


def _verify(args: Namespace) -> int:
    measured = verify_row(
        args.row,
        args.data,
        checkpoint=args.checkpoint,
        classes=args.classes,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
    )
    facts = [('row', measured[0].row), ('published top-1', f'{measured[0].published:.1f}')]
    for result in measured:
        norm = 'ImageNet mean/std' if result.normalisation == IMAGENET else '0.5 / 0.5'
        words = f'{result.top1:.2f} (top-5 {result.top5:.2f}, {result.images:,} images, {norm})'
        facts.append(('measured top-1', words))
    verdicts = [result.agrees for result in measured]
    verdict = 'no verdict: not the whole validation set'
    if None not in verdicts:
        side = 'within' if any(verdicts) else 'OUTSIDE'
        verdict = f'{side} {TOLERANCE:g} points of the published result'
    facts.append(('verdict', verdict))
    print_facts(facts)
    return 0 if any(verdicts) or None in verdicts else 1


def _input_words(row: Row) -> str:
    if not row.frames:
        return row.size
    return f'{row.frames} frames x {row.stride}, {row.size}, {row.views} views'


def _metric_words(row: Row) -> str:
    return ', '.join(f'{name} {percent(value)}' for name, value in row.metrics.items())


def print_facts(facts: list[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        _console().print(f'[bold]{name.ljust(width)}[/]  {escape(value)}')
