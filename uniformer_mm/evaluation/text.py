# SPDX-License-Identifier: Apache-2.0
"""A record in sentences, for the console and for reports."""

from __future__ import annotations

from .record import Record
from .verdict import HEADLINES, agreement_text


def verdict_text(record: Record) -> str:
    """The verdict as a sentence."""
    if record.agrees is not None:
        decisive = [name for name in record.published if name in HEADLINES]
        return agreement_text(decisive, record.agrees, record.tolerance)
    if not record.published:
        return 'no verdict: no published number was measured this way'
    if record.limit is not None:
        return 'no verdict on a random subset; see the interval'
    if not record.whole:
        return 'no verdict: too many listed files are missing; see the interval'
    return (
        f'no verdict: a list of {record.listed_files - record.missing:,} files, the published '
        f'result is of {record.published_files:,}'
    )


def data_text(record: Record) -> str:
    """How much of the list was tested."""
    words = f'{record.files:,} files'
    if record.samples != record.files:
        words += f', {record.samples:,} samples'
    words += f' of {record.listed:,} listed; {record.missing:,} missing'
    return words + (f'; subset of seed {record.seed}' if record.limit is not None else '')


def fusion_text(record: Record) -> str:
    """What the other way to fuse views would change; empty where views are not known."""
    for name, words in (('top1_prob', 'probabilities'), ('top1_logits', 'logits')):
        if name in record.metrics:
            gain = record.metrics[name] - record.metrics['top1']
            return f'the mean of {words} instead would change top-1 by {gain:+.2f}'
    return ''


def protocol_text(record: Record) -> str:
    """How the test differs from the official one, if it does."""
    words = [f'{key} {value}' for key, value in record.protocol.items()]
    if record.limit is not None:
        words.append(f'random subset of {record.limit:,} files, seed {record.seed}')
    return ', '.join(words) or 'official test'
