# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``inspect`` and ``convert`` of ``uniformer-mm``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _SubParsersAction

from ..console import print_pairs
from ..labels import CLASS_ORDERS
from ..models.arch import ARCHS
from .convert import TARGETS, convert_file
from .inspect import inspect_file
from .key_schemes import KEY_SCHEMES
from .zoo import SCHEME


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
        description='Rewrite a checkpoint in another key scheme, container or class order.',
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
    if args.to in KEY_SCHEMES and KEY_SCHEMES[args.to].differs:
        pairs.append((f'{args.to} differs', KEY_SCHEMES[args.to].differs))
    print_pairs(pairs)
    return 0
