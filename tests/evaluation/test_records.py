# SPDX-License-Identifier: Apache-2.0
"""Records: verdicts, what is printed of them, tables of all, and files that are none."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from uniformer_mm.evaluation.cli import print_record
from uniformer_mm.evaluation.record import Record, read_record, write_record
from uniformer_mm.evaluation.running.protocol import published_files
from uniformer_mm.evaluation.tables import best_records, print_results
from uniformer_mm.evaluation.text import verdict_text
from uniformer_mm.recipes import recipes

from .helpers import command, record_of


def tables(*records: Record) -> str:
    """What ``uniformer-mm results`` shows of records."""
    console = Console(width=240, record=True, file=io.StringIO())
    print_results(console, [(Path(), record) for record in records])
    return console.export_text()


@pytest.mark.parametrize(
    ('changes', 'agrees'),
    [
        ({'metrics': {'top1': 80.5}}, True),
        ({'metrics': {'top1': 81.1}}, True),
        ({'metrics': {'top1': 80.49}}, False),
        ({'metrics': {'top1': 81.11}}, False),
        ({'limit': 50}, None),
        ({'published': {}}, None),
        ({'metrics': {'top5': 90.0}}, None),
        # A list that has lost members, and lists of another length.
        ({'listed_files': 19_787, 'files': 18_798, 'missing': 989}, True),
        ({'listed_files': 19_787, 'files': 18_797, 'missing': 990}, None),
        ({'listed_files': 20_776, 'files': 20_776}, True),
        ({'listed_files': 20_777, 'files': 20_777}, None),
        ({'listed_files': 18_798, 'files': 18_798}, True),
        ({'listed_files': 18_797, 'files': 18_797}, None),
        ({'listed_files': 100, 'files': 100}, None),
        ({'listed_files': 18_900, 'files': 18_790, 'missing': 110}, None),
    ],
)
def test_verdicts(changes, agrees):
    facts = {'listed_files': 19_787, 'published_files': 19_787, 'files': 19_787}
    record = record_of('vid/k400_s_16x4', **facts | changes)
    assert record.agrees is agrees
    assert verdict_text(record).startswith('no verdict') == (agrees is None)


def test_a_list_of_another_length_is_named():
    record = record_of(
        'seg/upernet_s_g', published={'mIoU': 47.6}, listed_files=3, files=3, published_files=2000
    )
    assert record.agrees is None
    words = 'no verdict: a list of 3 files, the published result is of 2,000'
    assert verdict_text(record) == words


# The data sets' own sizes: what the authors report or ship as their lists.
SIZES = {
    'imagenet1k': 50_000, 'coco': 5_000, 'ade20k': 2_000, 'coco_keypoints': 5_000,
    'kinetics400': 19_787, 'kinetics600': 28_736, 'ssv1': 11_522, 'ssv2': 24_777,
    'ucf101': 3_783, 'hmdb51': 1_530,
}  # fmt: skip


def test_each_row_knows_how_long_its_list_is():
    sizes = {recipe.id: published_files(recipe) for recipe in recipes()}
    assert sizes == {recipe.id: SIZES[recipe.row.dataset] for recipe in recipes()}


def test_all_rows_as_tables(tmp_path):
    whole = record_of('vid/k400_s_16x4', metrics={'top1': 80.71})
    later_subset = record_of(
        'vid/k400_s_16x4', metrics={'top1': 60.0}, limit=5, date='2026-02-01T00:00:00+00:00'
    )
    subset = record_of('seg/upernet_s_g', metrics={'mIoU': 44.0}, published={'mIoU': 47.6},
                       intervals={'mIoU': (40.0, 49.0)}, limit=100)  # fmt: skip
    scales = record_of('seg/upernet_s_g', metrics={'mIoU_ms': 48.41}, published={'mIoU_ms': 48.5})
    short = record_of('cls/s', metrics={'top1': 40.0}, listed_files=20, published_files=50_000,
                      files=20)  # fmt: skip
    text = tables(whole, later_subset, subset, scales, short)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if '/' in line}
    assert lines['vid/k400_s_16x4'][1:3] == ['80.8', '80.71']
    row = ' '.join(lines['seg/upernet_s_g'])
    assert '47.6 44.0 [40.0, 49.0], n 100 48.5 48.41' in row
    # A short list is no published one, whatever it gives.
    assert ' '.join(lines['cls/s'][1:]).startswith('82.9 40.0, n 20 CPU')
    assert ' '.join(lines['cls/b'][1:]) == '83.8 not run'
    assert len(lines) == 95


def test_of_two_normalisations_the_closer_one_counts():
    # Published: 83.4. The newer record is the one farther off.
    near, far = (
        record_of('cls_tl/s_224', metrics={'top1': top1}, protocol={'variant': variant}, date=date)
        for top1, variant, date in (
            (83.3, 'mean', '2026-01-01T00:00:00+00:00'),
            (83.7, 'mean05', '2026-02-01T00:00:00+00:00'),
        )
    )
    for records in ((near, far), (far, near)):
        found = best_records([(Path(), record) for record in records])
        assert found['cls_tl/s_224', 'top1'] is near
    # A subset that happens to be closer does not count.
    lucky = replace(far, metrics={'top1': 83.4}, limit=5)
    assert best_records([(Path(), near), (Path(), lucky)])['cls_tl/s_224', 'top1'] is near


def test_a_size_of_persons_that_does_not_occur():
    """COCO has no AP of a size that is not annotated; a subset may lack one."""
    whole = record_of('pose/s_256x192')
    subset = replace(whole, metrics={k: v for k, v in whole.metrics.items() if k != 'APL'},
                     limit=5, files=5, date='2026-02-01T00:00:00+00:00')  # fmt: skip
    row = next(line for line in tables(subset).splitlines() if 'pose/s_256x192' in line)
    assert '76.7 none, n 5' in ' '.join(row.split())
    assert best_records([(Path(), whole), (Path(), subset)])['pose/s_256x192', 'APL'] is whole
    # Of two subsets the newer one counts, but not for what it lacks.
    older = replace(whole, limit=5, date='2026-01-15T00:00:00+00:00')
    best = best_records([(Path(), older), (Path(), subset)])
    assert best['pose/s_256x192', 'AP'] is subset and best['pose/s_256x192', 'APL'] is older
    console = Console(width=160, record=True, file=io.StringIO())
    print_record(console, subset, Path('w'))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ['APL', '76.7', 'none'] in lines
    assert ['AP', '74.0', '74.00', '+0.00'] in lines


def test_what_is_printed_of_a_video_test():
    metrics = {'top1': 80.62, 'top5': 94.5, 'top1_prob': 80.74}
    record = record_of('vid/k400_s_16x4', metrics=metrics, missing=3, files=97,
                       class_order='kinetics400_official (stated)', seconds=12.3)  # fmt: skip
    console = Console(width=160, record=True, file=io.StringIO())
    print_record(console, record, Path('w'))
    lines = [' '.join(line.split()) for line in console.export_text().splitlines()]
    assert 'vid/k400_s_16x4 (official test)' in lines
    assert 'top1 80.8 80.62 -0.18' in lines
    assert 'top5 94.50' in lines
    assert 'verdict top1 within 0.3 points of the published result' in lines
    assert 'data 97 files, 100 samples of 100 listed; 3 missing' in lines
    assert f'data list sha256 {"2" * 64}' in lines
    assert f'weights w.pth, sha256 {"0" * 64}' in lines
    assert 'class order kinetics400_official (stated)' in lines
    words = 'the mean of probabilities instead would change top-1 by +0.12'
    assert f'fusion {words}' in lines
    assert 'device CPU, 12 s' in lines and 'record w/record.json' in lines


def test_all_records_and_those_that_are_none(tmp_path):
    older = record_of('cls/s', metrics={'top1': 82.8})
    newer = replace(older, metrics={'top1': 82.85}, date='2026-02-01T00:00:00+00:00')
    subset = replace(older, metrics={'top1': 81.0}, limit=100)
    for name, record in (('a', older), ('b', newer), ('c', subset)):
        (tmp_path / name).mkdir()
        write_record(record, tmp_path / name)
    # Another program's, an older version's, and one that a disk has swallowed half of.
    facts = json.loads((tmp_path / 'a/record.json').read_text())
    del facts['listed_files']
    odd = {'other': '[1, 2]', 'old': json.dumps(facts), 'half': '{"row": ',
           'nonsense': json.dumps(asdict(older) | {'intervals': 3})}  # fmt: skip
    for name, content in odd.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'record.json').write_text(content)
    status, text = command('results', str(tmp_path), '--measured')
    assert status == 0 and 'cls/s 82.9 82.85' in text and '82.80' not in text
    for name in odd:
        assert f'left out: {tmp_path}/{name}/record.json ' in text
    status, text = command('results', str(tmp_path), '--all')
    assert status == 0
    for words in ('top1 82.80 (82.9)', 'top1 82.85 (82.9)', 'top1 81.00 (82.9)'):
        assert words in text
    assert 'random subset of 100 files, seed 0' in text
    assert 'top1' not in command('results', str(tmp_path), '--all', '--task', 'seg')[1]


def test_records_are_whole_or_not_there(tmp_path):
    with pytest.raises(ValueError, match='holds no finished test'):
        read_record(tmp_path / 'record.json')
    (tmp_path / 'record.json').write_text('{"row": ')
    with pytest.raises(ValueError, match='cannot be read'):
        read_record(tmp_path / 'record.json')
    (tmp_path / 'record.json').write_text('{"row": 3}')
    with pytest.raises(ValueError, match='no record of this version'):
        read_record(tmp_path / 'record.json')
