# SPDX-License-Identifier: Apache-2.0
"""The table of checkpoints, against the fact sheet of the official READMEs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import shared_dir
from uniformer_mm.models import ARCHS
from uniformer_mm.weights import zoo
from uniformer_mm.weights.zoo import find_by_digest, find_row, rows

LIGHT = ('xxs', 'xs')


@pytest.fixture(scope='module')
def facts() -> dict[str, dict[str, list[str]]]:
    """Rows of the fact sheet's tables: published results and published weights."""
    text = shared_dir('recipes.md').read_text(encoding='utf-8')
    parts = {
        'results': text.split('# 3. Published results')[1].split('# 4. Published weights')[0],
        'weights': text.split('## 4.1')[1].split('## 4.2')[0],
    }
    tables: dict[str, dict[str, list[str]]] = {}
    for name, part in parts.items():
        lines = re.findall(r'^\| ((?:cls|cls_tl|det|seg|pose|vid)/.*) \|$', part, re.M)
        cells = [[cell.strip() for cell in line.split(' | ')] for line in lines]
        tables[name] = {row[0]: row[1:] for row in cells}
    tables['hosts'] = {'text': [text.split('## 4.2')[1].split('## 4.3')[0]]}
    return tables


def test_every_published_row_is_there(facts):
    published = {row.id for row in rows() if not row.id.startswith('om/')}
    assert published == set(facts['results']) == set(facts['weights'])
    assert len(rows()) == 95


def test_drive_ids_logs_files_and_hashes(facts):
    for row in rows():
        if row.id.startswith('om/'):
            continue
        drive, file, log, folder = (cell.strip('`') for cell in facts['weights'][row.id])
        known = [mirror.address for mirror in row.mirrors if mirror.kind == 'drive']
        assert known == ([] if drive == '-' else [drive]), row.id
        assert row.released == ('not released' not in file)
        assert row.log == log.removeprefix('-')
        assert row.exp == folder
        named = re.match(r'[\w.]+\.pth', file)
        if named:
            assert row.file == named[0]
        elif row.released:
            assert row.file_source == 'unknown'
        md5 = re.search(r'md5 (\w{32})', file)
        assert [h.md5 for h in row.mirrors if h.md5] == ([md5[1]] if md5 else []), row.id
        source = {'[3P]': 'third party', '[INF]': 'inferred', 'name used': 'official code'}
        for mark, words in source.items():
            if mark in file:
                assert row.file_source == words, row.id


def test_published_numbers(facts):
    columns = {
        'cls': {'top1': 4},
        'cls_tl': {'top1': 4},
        'det': {'bbox_mAP': 0, 'segm_mAP': 1},
        'seg': {'mIoU': 0, 'mIoU_ms': 1},
        'pose': {'AP': 0, 'AP50': 1, 'AP75': 2, 'APM': 3, 'APL': 4, 'AR': 5},
        'vid': {'top1': 4},
    }
    for row_id, cells in facts['results'].items():
        expected = {
            name: float(cells[column].rstrip('*'))
            for name, column in columns[row_id.split('/')[0]].items()
            if cells[column] != '-'
        }
        assert find_row(row_id).metrics == expected, row_id


def test_inputs(facts):
    for row_id, cells in facts['results'].items():
        row = find_row(row_id)
        if row_id.startswith('vid'):
            frames, crops, clips = cells[1].split('x')
            assert (row.frames, row.views) == (frames, f'{clips}x{crops}')
            assert row.size == (cells[2].split()[0] if 'px' in cells[2] else '224')
        elif row_id.startswith('cls'):
            assert row.size == cells[1]


def test_archs_and_head_dims(facts):
    """The model column of the READMEs, and the head_dim rules of the fact sheet."""
    names = {'XXS': 'xxs', 'XS': 'xs', 'S': 'small', 'S†': 'small_plus', 'B': 'base', 'L': 'large'}
    for row_id, cells in facts['results'].items():
        row = find_row(row_id)
        if not row_id.startswith('cls'):
            continue
        name = names[cells[0].removeprefix('UniFormer-').split('+')[0]]
        name += '_ls' if 'Layer Scale' in cells[0] else ''
        name += '_tl' if row_id.startswith('cls_tl') else ''
        name += '_dim64' if 'dim64' in row_id else ''
        assert row.arch == name, row_id
        light = {'xxs': 28, 'xs': 32}.get(row.arch)
        thirty_two = row.arch in ('small_plus', 'small_tl', 'small_plus_tl', 'base_tl')
        plain = 32 if thirty_two else 64
        assert row.head_dim == (light or plain), row_id
    assert all(row.arch in ARCHS for row in rows())
    assert find_row('cls_tl/l_ls_224').scale_text == '1e-06 in all blocks'
    assert find_row('cls/b_ls').scale_text == '1e-06 in stages 3 and 4'
    assert find_row('vid/k400_xxs_4x128').scale_text == '0.1 in all blocks'


def test_mirrors_are_those_of_the_fact_sheet(facts):
    text = facts['hosts']['text'][0]
    for row in rows():
        for mirror in row.mirrors:
            if mirror.kind == 'drive':
                continue
            file = mirror.address.rpartition('/')[2].rpartition(':')[2]
            inferred = 'inferred' in mirror.note
            assert inferred or file in text or file.removesuffix('.pth') in text, mirror
            assert mirror.sha256_prefix in file
    assert (
        len({mirror.address for row in rows() for mirror in row.mirrors if mirror.kind == 'url'})
        == 14
    )


def test_preference_of_hosts():
    kinds = [mirror.kind for mirror in find_row('small_in1k').mirrors]
    assert kinds == ['hf', 'drive', 'url', 'url']
    assert [h.kind for h in find_row('seg/upernet_s_g').mirrors] == ['drive', 'mirror', 'mirror']


def test_rows_of_one_checkpoint_share_file_and_hosts():
    one, two, three = (find_row(f'seg/upernet_s_{x}') for x in ('g', 'h32', 'w32'))
    assert one.file == two.file == three.file and one.mirrors == two.mirrors == three.mirrors
    assert find_row('upernet_global_small') is one


def test_names_are_unique_and_found():
    names = [name for row in rows() for name in (row.id, row.name) if name]
    assert len(set(names)) == len(names)
    for row in rows():
        assert find_row(row.id) is row
        if row.name:
            assert find_row(f'uniformer://{row.name}') is row
    assert find_row('small_k400_16x4').id == 'vid/k400_s_16x4'
    assert find_row('small_in1k').id == 'cls/s'


def test_not_released():
    assert [row.id for row in rows() if not row.released] == [
        'seg/fpn_s_h14', 'seg/upernet_s_h14', 'seg/upernet_b_h14', 'vid/k400_s_32x4', 'om/t',
    ]  # fmt: skip


def test_facts_for_users():
    row = find_row('small_k400_16x4')
    assert (row.classes, row.class_order, row.ndim) == (400, 'kinetics400_official', 3)
    assert row.family.normalisation == '0.45 0.45 0.45 / 0.225 0.225 0.225'
    assert find_row('small_tl_224').family.normalisation.startswith('not settled')
    theirs = next(mirror for mirror in row.mirrors if 'mmaction' in mirror.address)
    assert theirs.class_order == 'kinetics400_alphabetical'
    assert all('Apache-2.0' in row.family.licence for row in rows())


def test_digests():
    md5 = 'f122ab0dde94b1d73ac00d2c5359a610'
    row, mirror = find_by_digest({'md5': md5, 'sha256': '0' * 64})
    assert (row.id, mirror.kind) == ('cls/s', 'drive')
    row, mirror = find_by_digest({'md5': '0' * 32, 'sha256': 'fe0a7ae0' + '0' * 56})
    assert (row.id, 'mmaction' in mirror.address) == ('cls/s', True)
    assert find_by_digest({'md5': '0' * 32, 'sha256': '0' * 64}) is None


def test_light_rows_are_listed():
    """Their configs are not written yet; their facts stand."""
    assert sum(row.arch in LIGHT for row in rows()) == 6 + 2 + 2 + 8
    assert zoo.SCHEME == 'uniformer://'
