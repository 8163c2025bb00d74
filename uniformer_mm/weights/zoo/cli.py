# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``zoo`` of ``uniformer-mm``; only ``fetch`` imports PyTorch."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

from rich.table import Table

from ...console import print_pairs, table_console
from ...models.arch import ARCHS
from . import SCHEME, Row, find_row, percent, rows

ROW_HELP = 'row id, short name or file name of uniformer-mm zoo'
_TASKS = {
    'cls': 'image classification',
    'det': 'detection',
    'seg': 'segmentation',
    'pose': 'pose estimation',
    'video': 'video classification',
}


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
    show = actions.add_parser('show', help='all that is known about a row, and its mirrors')
    show.add_argument('row', metavar='ROW', help=ROW_HELP)
    show.set_defaults(run=_show_row)
    fetch = actions.add_parser('fetch', help='download a row into the cache')
    fetch.add_argument('row', metavar='ROW', help=ROW_HELP)
    fetch.set_defaults(run=_fetch_row)
    return parser


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
            row.id, name, row.arch, str(row.head_dim), _input_text(row), _metric_text(row)
        )
    console = table_console()
    console.print(table)
    console.print(f'{len(found)} rows')
    return 0


def _show_row(args: Namespace) -> int:
    row = find_row(args.row)
    pairs = [
        ('row', row.id),
        ('name', f'{SCHEME}{row.name or row.id}'),
        ('task', f'{row.family.task}, {row.dataset}'),
        ('arch', row.arch),
        ('head_dim', str(row.head_dim)),
        ('layer scale', row.scale_text),
        ('attention', row.attention or 'global'),
        ('input', _input_text(row)),
        ('normalisation', row.family.normalisation),
        ('class order', row.class_order or "the data set's own"),
        ('published', _metric_text(row)),
        ('container', f'{row.family.container} ({row.family.container_source})'),
        ('file', f'{row.file} (name: {row.file_source})' if row.released else 'not released'),
        ('licence', row.family.licence),
        ('source', f'{row.family.source}, {row.exp}' if row.exp else row.family.source),
    ]
    for mirror in row.mirrors:
        note = f'; {mirror.note}' if mirror.note else ''
        pairs.append(('mirror', f'{mirror.url} ({mirror.hash_text}{note})'))
    if row.log:
        pairs.append(('training log', f'https://drive.google.com/file/d/{row.log}'))
    if row.family.drive_folder:
        folder = f'https://drive.google.com/drive/folders/{row.family.drive_folder}'
        pairs.append(('folder', f'{folder} (Baidu code {row.family.baidu_code})'))
    print_pairs(pairs)
    return 0


def _fetch_row(args: Namespace) -> int:
    from ..resolve import resolve_file

    resolved = resolve_file(f'{SCHEME}{args.row.removeprefix(SCHEME)}')
    print_pairs([('file', str(resolved.path)), *resolved.digests.items()])
    return 0


def _input_text(row: Row) -> str:
    if not row.frames:
        return row.size
    return f'{row.frames} frames x {row.stride}, {row.size}, {row.views} views'


def _metric_text(row: Row) -> str:
    return ', '.join(f'{name} {percent(value)}' for name, value in row.metrics.items())
