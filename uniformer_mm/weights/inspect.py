# SPDX-License-Identifier: Apache-2.0
"""What is known about a checkpoint, what is not, and why."""

from __future__ import annotations

from os import PathLike

from ..models.arch import ARCHS
from .files import Checkpoint
from .identify import identify
from .key_schemes import DetectedScheme
from .provenance import Provenance
from .resolve import ResolvedFile
from .structure import Structure

HEAD_DIM_UNKNOWN = (
    'not known: qkv maps C to 3 C channels however they are split into heads, so no shape tells; '
    'it is taken from the arch that you build'
)


def inspect_file(
    checkpoint: str | PathLike, *, prefix: str | None = None, ema: bool = False
) -> list[tuple[str, str]]:
    """What is known about a checkpoint, as pairs of a name and text.

    Args:
        checkpoint: Path or ``uniformer://`` name.
        prefix: What stands before the trunk's keys, if it is not ``'backbone.'``.
        ema: Look at the averaged weights of a training checkpoint.

    Returns:
        The pairs, in reading order.

    Raises:
        CheckpointError: The file cannot be read or holds no UniFormer.
    """
    found = identify(checkpoint, prefix=prefix, ema=ema)
    return [
        *_file_pairs(found.file, found.detected),
        *_structure_pairs(found.detected, found.structure),
        *_provenance_pairs(found.structure, found.provenance),
        *_zoo_pairs(found.resolved),
    ]


def _file_pairs(file: Checkpoint, detected: DetectedScheme) -> list[tuple[str, str]]:
    pairs = [
        ('file', f'{file.path} ({file.path.stat().st_size:,} bytes)'),
        ('sha256', file.sha256),
        ('md5', file.md5),
        ('container', file.container),
        (
            'key scheme',
            detected.scheme + (f', under {detected.prefix!r}' * bool(detected.prefix)),
        ),
    ]
    if detected.others:
        parts = ', '.join(f'{part} ({len(keys)})' for part, keys in detected.others.items())
        pairs.append(('other parts', parts))
    if 'epoch' in file.extras:
        pairs.append(('epoch', str(file.extras['epoch'])))
    return pairs


def _structure_pairs(detected: DetectedScheme, in_file: Structure) -> list[tuple[str, str]]:
    state = detected.state
    numbers = sum(v.numel() for v in state.values() if v.is_floating_point())
    types = ', '.join(sorted({str(v.dtype).removeprefix('torch.') for v in state.values()}))
    scale = {None: 'none', 'attention': 'stages 3 and 4', 'all': 'all blocks'}[in_file.layer_scale]
    pairs = [
        ('tensors', f'{len(state)}, {numbers:,} numbers with statistics, {types}'),
        ('arch by its shapes', ' or '.join(in_file.archs()) or 'none of the table'),
        ('depths and dims', f'{in_file.depths}, {in_file.dims}'),
        ('rank', '2-D (images)' if in_file.ndim == 2 else '3-D (clips)'),
        ('stem', f'{in_file.stem}, {in_file.in_channels} input channels'),
        ('layer scale', scale),
        ('made for', in_file.task()),
    ]
    if in_file.ndim == 3:
        pairs.append(('attention', 'divided' if in_file.divided else 'joint space and time'))
        pairs.append(('patch_kernel_t', str(in_file.kernel_t)))
    return pairs


def _provenance_pairs(in_file: Structure, provenance: Provenance) -> list[tuple[str, str]]:
    pairs = []
    for source in provenance.sources:
        also = ''.join(f' or {value}' for value in source.alternatives)
        pairs.append(('head_dim', f'{source.head_dim}{also} ({source.words})'))
    if not provenance.sources:
        released = {ARCHS[name].head_dim for name in in_file.archs()}
        hint = f'; released files of these shapes have {" or ".join(map(str, sorted(released)))}'
        pairs.append(('head_dim', HEAD_DIM_UNKNOWN + (hint if released else '')))
    if in_file.classes in (400, 600):
        known = provenance.class_order
        words = (
            f'{known} ({provenance.class_order_source})'
            if known
            else (
                'not known: rows of a linear layer carry no names; official files are in the '
                "authors' order, mmaction2's in the alphabetical one"
            )
        )
        pairs.append(('class order', words))
    return pairs


def _zoo_pairs(resolved: ResolvedFile) -> list[tuple[str, str]]:
    row = resolved.row
    if row is None:
        return [
            ('zoo', 'not a known file (its hash is in no row)'),
            ('normalisation', 'not known: it is not stored with the weights'),
        ]
    metrics = ', '.join(f'{name} {value:g}' for name, value in row.metrics.items())
    return [
        ('zoo', f'{row.id}, known by its {resolved.known_by}'),
        ('normalisation', row.family.normalisation),
        ('published', metrics),
        ('licence', row.family.licence),
    ]
