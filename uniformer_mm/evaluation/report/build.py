# SPDX-License-Identifier: Apache-2.0
"""One HTML page about a finished test, in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup
from mmengine.config import Config

from ...files import prepare, write_text
from ...labels import CLASS_ORDERS, class_names
from ...weights.zoo import percent
from ..record import Record, read_record
from ..running.analysis import coco_evaluations
from ..running.store import PredictionStore
from ..running.worker import CONFIG
from ..text import data_text, fusion_text, protocol_text, verdict_text
from . import classify, coco, page, plots, segment

FILE_NAME = 'report.html'


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Turn a test's folder into one page that loads nothing else.

    Args:
        folder: Folder that ``uniformer-mm reproduce`` named.
        output: Where to write; ``report.html`` in the folder by default.

    Returns:
        The page, written whole or not at all.

    Raises:
        ValueError: No finished test in the folder, or the page cannot be written.
    """
    record = read_record(folder / 'record.json')
    path = prepare(output or folder / FILE_NAME, overwrite=True)
    write_text(path, render(record, folder))
    return path


def render(record: Record, folder: Path) -> str:
    """The page as text."""
    stored = list(PredictionStore(folder).read())
    if not stored:
        raise ValueError(f'{folder} has a record, but no predictions; run the test again.')
    config = Config.fromfile(folder / CONFIG)
    if record.task in ('cls', 'video'):
        parts = classify.sections(record, stored, _fixed_names(config))
    elif record.task == 'seg':
        parts = segment.sections(record, stored, config)
    else:
        parts = coco.sections(record, stored, coco_evaluations(folder, record, config))
    words = protocol_text(record)
    title = f'{record.row}: {words}'
    return page.document(
        title,
        page.heading(record.row, f'{words} — {record.config}'),
        page.verdict(verdict_text(record), record.agrees),
        page.section('Results', _metrics(record)),
        *parts,
        page.section('Latency', _latency([1000 * sample.seconds for sample in stored])),
        page.section('What was tested', _facts(record)),
    )  # fmt: skip


def _fixed_names(config: Config) -> list[str]:
    """Names of Kinetics' classes in the order of the list, which mmaction2 does not know."""
    order = dict(config.test_cfg.get('identity') or {}).get('class order', '')
    return list(class_names(order)) if order in CLASS_ORDERS else []


def _metrics(record: Record) -> Markup:
    headings = ['metric', 'measured']
    headings += ['published', 'difference'] if record.published else []
    headings += ['95 % interval'] if record.intervals else []
    rows = []
    for name, value in record.metrics.items():
        published, interval = record.published.get(name), record.intervals.get(name)
        cells = {'metric': name, 'measured': f'{value:.2f}'}
        if published is not None:
            cells |= {'published': percent(published), 'difference': f'{value - published:+.2f}'}
        if interval:
            cells['95 % interval'] = '{:.2f} to {:.2f}'.format(*interval)
        rows.append([cells.get(heading, '') for heading in headings])
    shown = page.table(headings, rows)
    notes = [*record.notes, fusion_text(record)]
    if record.intervals:
        notes.append(f'Intervals: {record.interval_method}.')
    return shown + Markup('').join(page.note(words) for words in notes if words)


def _latency(milliseconds: list[float]) -> Markup:
    quantiles = np.percentile(milliseconds, [50, 95, 100])
    rows = [(name, f'{value:.1f}') for name, value in
            zip(('median', '95th percentile', 'longest'), quantiles, strict=True)]  # fmt: skip
    return page.columns(
        page.image(plots.histogram(milliseconds, 'ms per sample'), '', kind='png'),
        page.table(('', 'ms per sample'), rows)
        + page.note(
            'Network, post-processing and metric; without loading. Batches are shared out.'
        ),
    )


def _facts(record: Record) -> Markup:
    versions = ', '.join(f'{name} {version}' for name, version in record.versions.items())
    return page.pairs([
        ('data', data_text(record)),
        ('data list sha256', record.list_sha256),
        ('weights', record.weights),
        ('weights sha256', record.weights_sha256),
        ('class order', record.class_order or "the data set's own"),
        ('configuration sha256', record.config_sha256),
        ('device', record.device),
        ('date', record.date),
        ('duration', f'{record.seconds:.0f} s'),
        ('versions', versions),
    ])  # fmt: skip
