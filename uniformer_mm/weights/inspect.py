# SPDX-License-Identifier: Apache-2.0
"""What is known about a checkpoint, what is not, and why."""

from __future__ import annotations

from os import PathLike

from ..models.arch import ARCHS
from .files import Checkpoint, read_checkpoint
from .key_schemes import Recognised, recognise
from .provenance import Evidence, gather
from .resolve import Located, locate
from .structure import Signature, signature_of

HEAD_DIM_UNKNOWN = (
    'not known: qkv maps C to 3 C channels however they are split into heads, so no shape tells; '
    'it is taken from the arch that you build'
)


def inspect_file(
    checkpoint: str | PathLike, *, prefix: str | None = None, ema: bool = False
) -> list[tuple[str, str]]:
    """Facts about a checkpoint as pairs of a name and words.

    Args:
        checkpoint: Path or ``uniformer://`` name.
        prefix: What stands before the trunk's keys, if it is not ``'backbone.'``.
        ema: Look at the averaged weights of a training checkpoint.

    Returns:
        The facts, in reading order.

    Raises:
        CheckpointError: The file cannot be read or holds no UniFormer.
    """
    located = locate(checkpoint)
    file = read_checkpoint(located.path, ema=ema, digests=located.digests)
    recognised = recognise(file.state, prefix)
    held = signature_of(recognised.state)
    evidence = gather(file, recognised, held, located)
    return [
        *_file_facts(file, recognised),
        *_structure_facts(recognised, held),
        *_evidence_facts(held, evidence),
        *_zoo_facts(located),
    ]


def _file_facts(file: Checkpoint, recognised: Recognised) -> list[tuple[str, str]]:
    facts = [
        ('file', f'{file.path} ({file.path.stat().st_size:,} bytes)'),
        ('sha256', file.sha256),
        ('md5', file.md5),
        ('container', file.container),
        (
            'key scheme',
            recognised.layout + (f', under {recognised.prefix!r}' * bool(recognised.prefix)),
        ),
    ]
    if recognised.others:
        parts = ', '.join(f'{part} ({len(keys)})' for part, keys in recognised.others.items())
        facts.append(('other parts', parts))
    if 'epoch' in file.extras:
        facts.append(('epoch', str(file.extras['epoch'])))
    return facts


def _structure_facts(recognised: Recognised, held: Signature) -> list[tuple[str, str]]:
    state = recognised.state
    numbers = sum(v.numel() for v in state.values() if v.is_floating_point())
    types = ', '.join(sorted({str(v.dtype).removeprefix('torch.') for v in state.values()}))
    scale = {None: 'none', 'attention': 'stages 3 and 4', 'all': 'all blocks'}[held.layer_scale]
    facts = [
        ('tensors', f'{len(state)}, {numbers:,} numbers with statistics, {types}'),
        ('arch by its shapes', ' or '.join(held.archs()) or 'none of the table'),
        ('depths and dims', f'{held.depths}, {held.dims}'),
        ('rank', '2-D (images)' if held.rank == 2 else '3-D (clips)'),
        ('stem', f'{held.stem}, {held.in_channels} input channels'),
        ('layer scale', scale),
        ('made for', held.task()),
    ]
    if held.rank == 3:
        facts.append(('attention', 'divided' if held.divided else 'joint space and time'))
        facts.append(('patch_kernel_t', str(held.kernel_t)))
    return facts


def _evidence_facts(held: Signature, evidence: Evidence) -> list[tuple[str, str]]:
    facts = []
    for claim in evidence.claims:
        also = ''.join(f' or {value}' for value in claim.alternatives)
        facts.append(('head_dim', f'{claim.head_dim}{also} ({claim.words})'))
    if not evidence.claims:
        released = {ARCHS[name].head_dim for name in held.archs()}
        hint = f'; released files of these shapes have {" or ".join(map(str, sorted(released)))}'
        facts.append(('head_dim', HEAD_DIM_UNKNOWN + (hint if released else '')))
    if held.classes in (400, 600):
        known = evidence.class_order
        words = (
            f'{known} ({evidence.class_order_source})'
            if known
            else (
                'not known: rows of a linear layer carry no names; official files are in the '
                "authors' order, mmaction2's in the alphabetical one"
            )
        )
        facts.append(('class order', words))
    return facts


def _zoo_facts(located: Located) -> list[tuple[str, str]]:
    row = located.row
    if row is None:
        return [
            ('zoo', 'not a known file (its hash is in no row)'),
            ('normalisation', 'not known: it is not stored with the weights'),
        ]
    metrics = ', '.join(f'{name} {value:g}' for name, value in row.metrics.items())
    return [
        ('zoo', f'{row.id}, known by its {located.known_by}'),
        ('normalisation', row.family.normalisation),
        ('published', metrics),
        ('licence', row.family.licence),
    ]
