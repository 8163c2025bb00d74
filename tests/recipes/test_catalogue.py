# SPDX-License-Identifier: Apache-2.0
"""The catalogue of recipes, against the fact sheet of the official sources."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import uniformer_mm.recipes as package
from tests.conftest import shared_dir
from uniformer_mm.recipes import TOOLBOXES, find_recipe, recipes
from uniformer_mm.recipes.tables import read_catalogue
from uniformer_mm.weights.zoo import rows

LIGHT = ('xxs', 'xs')
TABLES = Path(package.__file__).parent


@pytest.fixture(scope='module')
def sheet() -> str:
    return shared_dir('recipes.md').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def published(sheet) -> dict[str, list[str]]:
    """Cells of the tables of published results, by row id."""
    part = sheet.split('# 3. Published results')[1].split('# 4. Published weights')[0]
    lines = re.findall(r'^\| ((?:cls|cls_tl|det|seg|pose|vid)/.*) \|$', part, re.M)
    cells = [[cell.strip() for cell in line.split(' | ')] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_one_recipe_for_each_row_of_the_zoo():
    assert [recipe.id for recipe in recipes()] == [row.id for row in rows()]
    assert len(recipes()) == 95
    for recipe in recipes():
        assert recipe.row.id == recipe.id
        assert recipe.metrics == recipe.row.metrics
        assert recipe.config, recipe.id
        assert recipe.task in TOOLBOXES


def test_params_and_flops_are_those_printed(published):
    columns = {'cls': (2, 3), 'cls_tl': (2, 3), 'det': (2, 3), 'seg': (2, 3), 'pose': (None, 6),
               'vid': (None, 3)}  # fmt: skip
    for row_id, cells in published.items():
        recipe = find_recipe(row_id)
        params, flops = columns[row_id.split('/')[0]]
        assert recipe.params == (cells[params] if params is not None else ''), row_id
        assert recipe.flops == cells[flops].removeprefix('-'), row_id
    assert [(r.params, r.flops) for r in map(find_recipe, ('om/t', 'om/s'))] == [
        ('5.55M', '0.88G'), ('21.5M', '3.44G'),
    ]  # fmt: skip


def test_flops_belong_to_an_input(published):
    for row_id, cells in published.items():
        recipe = find_recipe(row_id)
        expected = {'det': '800x1280', 'seg': '512x2048'}.get(recipe.task)
        if recipe.task == 'pose':
            expected = row_id.split('_')[-1]
        elif recipe.task == 'cls':
            expected = cells[1]
        elif recipe.task == 'video':
            frames = cells[1].split('x')[0]
            expected = f'{frames}x{cells[2].split()[0] if "px" in cells[2] else 224}'
        assert recipe.flops_input == recipe.measured.input == expected, row_id


def test_measured_values_stand_in_the_sheet(sheet):
    """Numbers of sections 1.1, 1.5, 1.6 and 1.7, where the sheet says which network they are of."""
    light = sheet.split('## 1.7')[1].split('## 1.8')[0]
    for recipe in recipes():
        measured, arch = recipe.measured, recipe.arch
        if recipe.task == 'video' and arch in LIGHT:
            assert f'{measured.input} {measured.gmacs:.2f}' in light, recipe.id
            continue
        part = {
            'classifier': sheet.split('## 1.1')[1].split('## 1.2')[0],
            'backbone': sheet.split('Backbone cost')[1].split('## 1.6')[0],
            'video classifier': sheet.split('| video model |')[1].split('**Inflation')[0],
        }[measured.network]
        assert re.search(rf'(?<![\d.]){re.escape(f"{measured.gmacs:g}")}', part), recipe.id
        if recipe.row.dataset in ('kinetics400', 'coco', 'ade20k', 'coco_keypoints'):
            assert f'{measured.params:,}' in part, recipe.id


@pytest.mark.parametrize(
    ('row_id', 'gmacs', 'params'),
    [
        ('cls/s_plus', 4.201, 24_032_552),
        ('cls_tl/b_384', 27.21, 50_289_552),
        ('cls_tl/l_ls_224', 19.71, 100_103_888),
        ('det/cascade_b_h14_3x_ms', 229.5, 49_264_576),
        ('seg/fpn_s_h14', 105.1, 21_033_280),
        ('seg/upernet_s_w32', 96.3, 21_033_280),
        ('seg/fpn_b_h32', 263.2, 49_264_576),
        ('seg/upernet_b_g', 384.0, 49_264_576),
        ('pose/b_384x288', 19.53, 49_264_576),
        ('vid/k400_b_32x4', 258.3, 49_813_200),
        ('vid/k600_s_16x8', 41.7, 21_400_400 + 200 * 513),
        ('vid/ssv1_s32_k600', 109.4, 21_400_400 - 226 * 513),
        ('vid/k400_xxs_8x128', 2.02, 9_840_616),
        ('vid/k400_xxs_8x160', 3.22, 9_833_896),
    ],
)
def test_measured_values_by_hand(row_id, gmacs, params):
    measured = find_recipe(row_id).measured
    assert (measured.gmacs, measured.params) == (gmacs, params)


def test_printed_flops_agree_with_the_measured_ones_or_are_marked():
    """Only where the published number is of the measured network, or of that times the views.

    4 % cover what FLOP counters add for norms and activations in the smallest networks.
    """
    for recipe in recipes():
        if recipe.task in ('det', 'seg', 'pose') or not recipe.flops:
            continue
        clips, _, crops = (recipe.row.views or '1x1').partition('x')
        counted = recipe.measured.gmacs * int(clips) * int(crops)
        digits = len(recipe.flops.rstrip('G').partition('.')[2])
        error = abs(float(recipe.flops.rstrip('G')) - counted)
        agrees = error <= max(0.04 * counted, 0.5 * 10**-digits)
        assert agrees != recipe.flops_are_wrong, (recipe.id, counted, recipe.flops)


def test_wrong_flops_are_marked():
    marked = {recipe.id for recipe in recipes() if recipe.flops_are_wrong}
    assert marked == {
        'cls_tl/l_ls_224', 'cls_tl/l_ls_384', 'seg/fpn_s_h14', 'pose/b_384x288', 'om/t', 'om/s',
    }  # fmt: skip


def test_neck_and_head_cost_the_same_in_all_rows_of_a_segmentor():
    """Published minus measured backbone; the one row that does not fit is marked."""
    for method, rest in (('fpn', 86.6), ('upernet', 842.7)):
        for recipe in recipes():
            if recipe.id.startswith(f'seg/{method}') and recipe.flops:
                difference = float(recipe.flops.rstrip('G')) - recipe.measured.gmacs
                assert (abs(difference - rest) < 5) != recipe.flops_are_wrong, recipe.id


def test_trainings():
    for recipe in recipes():
        if not recipe.training:
            assert recipe.id.startswith('cls_tl/'), recipe.id
            continue
        trainer = find_recipe(recipe.training)
        assert (trainer.row.file, trainer.row.log) == (recipe.row.file, recipe.row.log)
        assert trainer.arch == recipe.arch
    shared = [recipe.id for recipe in recipes() if recipe.training not in ('', recipe.id)]
    assert len(shared) == 8 and all(i.endswith(('_h32', '_w32')) for i in shared)


def test_token_labelling_rows_are_tested_with_both_normalisations():
    for recipe in recipes():
        expected = recipe.id.startswith('cls_tl/')
        assert len(recipe.configs) == (2 if expected else 1), recipe.id
        if expected:
            assert recipe.other_configs == (recipe.config.replace('.py', '_mean05.py'),)


def test_other_published_numbers(sheet, published):
    pose = {i: cells[-1].split('/') for i, cells in published.items() if i.startswith('pose/')}
    for recipe in recipes():
        for other in recipe.also_published:
            if recipe.task == 'pose':
                assert [f'{value:.1f}' for value in other.metrics.values()] == pose[recipe.id]
            for value in other.metrics.values():
                assert f'{value:g}' in sheet
    assert sum(bool(recipe.also_published) for recipe in recipes()) == 6 + 3 + 5 + 4 + 5
    (abstract,) = [
        other for other in find_recipe('vid/k600_b_32x4').also_published
        if other.source.startswith('abstract')
    ]  # fmt: skip
    assert (abstract.metrics['top1'], find_recipe('vid/k600_b_32x4').metrics['top1']) == (
        84.8,
        84.5,
    )


def test_every_contradiction_of_the_sheet_is_a_remark():
    """One distinctive word of each of the 17 points, and a row that must show it."""
    for row_id, word in [
        ('cls_tl/l_ls_384', '39.2G'), ('pose/s_256x192', 'AR^M'), ('pose/b_384x288', '22.1G'),
        ('pose/s_384x288', 'AR 81.4'), ('seg/fpn_s_h14', '172G'), ('vid/k400_s_8x8', 'test.yaml'),
        ('vid/k400_xxs_32x160', 'autocast'), ('cls/xxs_128', 'AutoAugment'),
        ('cls_tl/l_ls_384', 'run.sh'), ('vid/hmdb51_s_16x4', '101'), ('vid/k600_b_32x4', '84.8'),
        ('vid/ssv1_b32_k600', '60.9'), ('det/mask_rcnn_b_h14_1x', 'windows='),
        ('cls_tl/s_224', '0.5 / 0.5'), ('vid/k600_b_16x8', 'batch 40'),
        ('vid/ssv2_s16_k400', 'DROPOUT_RATE'), ('det/mask_rcnn_s_h14_3x_ms', '0.1 at 3x'),
        ('vid/ucf101_s_16x4', 'split 1'), ('vid/k400_b_32x4', '59G'), ('om/s', '83.9'),
        ('vid/k600_s_16x4', 'centres them'),
    ]:  # fmt: skip
        texts = ' '.join(remark.text for remark in find_recipe(row_id).remarks)
        assert word in texts, (row_id, word)


def test_seeds_and_gpus():
    seeds = {'cls/s': 0, 'cls_tl/b_384': 42, 'det/mask_rcnn_s_h14_1x': None, 'om/t': None,
             'vid/k400_s_16x4': 6666, 'vid/ssv1_s16_k400': 0, 'vid/ssv2_b32_k600': 6666,
             'vid/hmdb51_s_16x4': 6666, 'vid/k400_xxs_4x128': None}  # fmt: skip
    assert {row_id: find_recipe(row_id).seed for row_id in seeds} == seeds
    assert find_recipe('vid/k600_b_32x4').gpus == 32
    four = {f'vid/k400_xxs_{clip}' for clip in ('4x160', '8x128', '8x160')}
    assert {r.id for r in recipes() if r.gpus == 4} == four
    assert {r.gpus for r in recipes() if r.id not in (*four, 'vid/k600_b_32x4')} == {8}


def test_find():
    recipe = find_recipe('det/mask_rcnn_s_h14_1x')
    for name in ('configs/det/mask_rcnn_uniformer_s.py', 'uniformer://mask_rcnn_1x_hybrid_small'):
        assert find_recipe(name) is recipe
    assert find_recipe('cls/uniformer_s_tl_224_mean05.py').id == 'cls_tl/s_224'
    assert find_recipe('upernet_global_small').id == 'seg/upernet_s_g'
    with pytest.raises(ValueError, match=r"'det/mask_rcnn_s_1x' is no recipe; did you mean one of"):
        find_recipe('det/mask_rcnn_s_1x')


@pytest.mark.parametrize(
    ('table', 'old', 'new', 'message'),
    [
        ('recipes.csv', 'id,config', 'id,cfg', r'recipes.csv, line 1: columns .*expected'),
        (
            'recipes.csv',
            '_128_in1k.py,,',
            '_128_in1k.py,',
            'recipes.csv, line 2: expected 10 cells',
        ),
        ('recipes.csv', 'cls/xxs_128,', 'cls/xxs_129,', r"ids must be the zoo's.*'cls/xxs_128'"),
        ('recipes.csv', 'cls/xxs_160,', 'cls/xxs_128,', r"line 3: id='cls/xxs_128'; expected each"),
        ('recipes.csv', '10.2M', '10.2', r"line 2: params='10.2'; expected a number like '22M'"),
        ('recipes.csv', 'G,800x1280', 'G,800x1333', r"flops_input='800x1333'; expected one with"),
        ('recipes.csv', 'imagenet', 'imagnet', r"protocol='imagnet'; expected one of"),
        ('recipes.csv', ',cls/s,8', ',cls_tl/s_224,8', r"training='cls_tl/s_224'; expected the"),
        ('recipes.csv', 'cls/uniformer_xs_192_in1k.py', '', r"config=''; expected cls/NAME.py"),
        ('recipes.csv', ',cls/s,8', ',cls/s,eight', r"gpus='eight'; expected a number above 0"),
        ('recipes.csv', 'uniformer_b_in1k', 'uniformer_s_in1k', r'cls/s has this one'),
        ('recipes.csv', 'cls/uniformer_b_in1k', 'det/b', r"config='det/b.py'; expected cls/NAME"),
        ('protocols.csv', 'images=50000', 'images', r'expected name=value;name=value'),
        ('measured_params.csv', '21033280', '0', r"params='0'; expected a number above 0"),
        ('measured_macs.csv', '3.632', 'x', r"gmacs='x'; expected a number above 0"),
        ('measured_macs.csv', 'tiny', 'tini', r"arch='tini'; expected one of"),
        ('remarks.csv', 'vid/hmdb51_*', 'vid/hmdb52_*', r"'vid/hmdb52_\*' matches none"),
        ('remarks.csv', ',flops,', ',flop,', r"kind='flop'; expected one of"),
        ('also_published.csv', 'AP=74.0', 'AP=high', r'expected numbers'),
        ('also_published.csv', 'vid/k400_b_32x4', 'vid/b', r"row='vid/b'; expected one of the"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, table, old, new, message):
    for name in TABLES.glob('*.csv'):
        shutil.copy(name, tmp_path)
    content = (tmp_path / table).read_text(encoding='utf-8')
    assert old in content
    (tmp_path / table).write_text(content.replace(old, new, 1), encoding='utf-8')
    with pytest.raises(ValueError, match=message):
        read_catalogue(tmp_path)
