# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``inspect``, ``convert`` and ``verify`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

from ..console import print_pairs
from ..labels import CLASS_ORDERS
from ..models.arch import ARCHS
from .convert import TARGETS, convert_file
from .inspect import inspect_file
from .layouts import LAYOUTS
from .verify import IMAGENET, TOLERANCE, verify_row
from .zoo import SCHEME
from .zoo.cli import ROW_HELP


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
    parser.add_argument('row', metavar='ROW', help=f'of image classification; {ROW_HELP}')
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


def _inspect(args: Namespace) -> int:
    print_pairs(inspect_file(args.checkpoint, prefix=args.prefix, ema=args.ema))
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
    pairs = [('written', str(path)), *((name, str(value)) for name, value in record.items())]
    if args.to in LAYOUTS and LAYOUTS[args.to].differs:
        pairs.append((f'{args.to} differs', LAYOUTS[args.to].differs))
    print_pairs(pairs)
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
    pairs = [('row', measured[0].row), ('published top-1', f'{measured[0].published:.1f}')]
    for result in measured:
        norm = 'ImageNet mean/std' if result.normalisation == IMAGENET else '0.5 / 0.5'
        words = f'{result.top1:.2f} (top-5 {result.top5:.2f}, {result.images:,} images, {norm})'
        pairs.append(('measured top-1', words))
    verdicts = [result.agrees for result in measured]
    verdict = 'no verdict: not the whole validation set'
    if None not in verdicts:
        side = 'within' if any(verdicts) else 'OUTSIDE'
        verdict = f'{side} {TOLERANCE:g} points of the published result'
    pairs.append(('verdict', verdict))
    print_pairs(pairs)
    return 0 if any(verdicts) or None in verdicts else 1
