# SPDX-License-Identifier: Apache-2.0
"""What a user without a clone gets: configs in the wheel, and a model index that mim reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import make_index
import pytest

from tests.conftest import ROOT
from uniformer_mm.recipes import config_root, recipes, shipped_configs

PROBE = """
import json
from importlib import import_module
from pathlib import Path
from mmengine import Config
import uniformer_mm
from uniformer_mm.recipes import config_path, config_root, find_recipe, shipped_configs, recipes
download, search = (import_module(f'mim.commands.{name}') for name in ('download', 'search'))

def fake(url, path, **_):
    Path(path).write_text(url)

download.download_from_file = fake
found = search.get_model_info('uniformer_mm', to_dict=True)
poses = search.get_model_info('uniformer_mm', configs=['td_hm_uniformer_s_256x192'], to_dict=True)
coco = search.get_model_info('uniformer_mm', training_datasets=['COCO'], to_dict=True)
good = search.get_model_info('uniformer_mm', filter_conditions='box_ap>50', to_dict=True)
download.download('uniformer_mm', ['td_hm_uniformer_s_256x192'], 'fetched')
rows = ('det/cascade_b_h14_3x_ms', 'seg/upernet_s_h32', 'pose/b_448x320', 'vid/ssv1_b32_k600',
        'cls_tl/l_ls_384')
print(json.dumps(dict(
    package=uniformer_mm.__file__,
    root=str(config_root()),
    leaves=shipped_configs(),
    missing=[r.id for r in recipes() if r.config and not config_path(r).is_file()],
    archs=[Config.fromfile(config_path(find_recipe(row))).model.backbone.arch for row in rows],
    models={name: facts.get('row') for name, facts in found.items()},
    pose=poses['td_hm_uniformer_s_256x192'],
    coco=sorted(coco),
    good=sorted(good),
)))
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of what git tracks here, without the network."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    ignored = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for name in ('uniformer_mm', 'configs'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
    subprocess.run([*command, '--no-index', '-w', out, source], check=True)
    (built,) = out.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def seen(wheel, tmp_path_factory) -> dict:
    """What a process sees that has the wheel's content before the clone on its path."""
    site, elsewhere = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('elsewhere')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    env = {**os.environ, 'PYTHONPATH': str(site), 'HOME': str(elsewhere)}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROBE],
        cwd=elsewhere, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]) | {'site': site, 'cwd': elsewhere}


def test_the_wheel_holds_every_config_as_a_file(wheel):
    """Links are followed; the bases are there too; nothing else came along."""
    with zipfile.ZipFile(wheel) as archive:
        prefix = 'uniformer_mm/.mim/configs/'
        shipped = {
            name.removeprefix(prefix): archive.read(name)
            for name in archive.namelist()
            if name.startswith(prefix)
        }
    root = config_root()
    ours = [path for path in root.rglob('*') if path.suffix in ('.py', '.yml')]
    assert shipped == {path.relative_to(root).as_posix(): path.read_bytes() for path in ours}


def test_configs_are_found_and_load_without_a_clone(seen):
    assert Path(seen['package']).is_relative_to(seen['site'])
    assert Path(seen['root']) == seen['site'] / 'uniformer_mm/.mim/configs'
    assert seen['leaves'] == shipped_configs()
    assert seen['missing'] == []
    assert seen['archs'] == ['base', 'small', 'base', 'base', 'large_ls_tl']


def test_mim_search_finds_every_recipe(seen):
    expected = {Path(config).stem: r.id.lower() for r in recipes() for config in r.configs}
    assert seen['models'] == expected
    assert len(expected) == sum(len(recipe.configs) for recipe in recipes()), 'names are unique'


def test_mim_search_knows_metrics_weights_and_conditions(seen):
    pose = seen['pose']
    assert pose['config'] == 'configs/pose/td_hm_uniformer_s_256x192.py'
    assert (pose['coco/ap'], pose['coco/ar'], pose['arch']) == (74.0, 79.5, 'small')
    assert pose['weight'].startswith('https://download.openmmlab.com/mmpose/')
    assert pose['results_are'] == 'published by the authors, not run here'
    expected = [r for r in recipes() if r.row.dataset.startswith('coco') and r.config]
    assert seen['coco'] == sorted(Path(r.config).stem for r in expected)
    assert seen['good'] == sorted(
        Path(r.config).stem for r in expected if r.metrics.get('bbox_mAP', 0) > 50
    )


def test_mim_download_gets_the_config_and_asks_for_the_weights(seen):
    folder = seen['cwd'] / 'fetched'
    text = (folder / 'td_hm_uniformer_s_256x192.py').read_text()
    assert "arch='small'" in text
    (weights,) = folder.glob('*.pth')
    assert weights.read_text() == seen['pose']['weight']


def test_weights_for_plain_downloads_need_no_conversion():
    """Hosts whose files hold a whole model in its toolbox's keys."""
    for recipe in recipes():
        direct = [h for h in recipe.row.mirrors if make_index._is_direct(recipe, h)]
        for mirror in direct:
            assert 'openmmlab.com' in mirror.url or recipe.task == 'seg', recipe.id
            assert 'in1k' not in mirror.url, 'a classifier is no detector'


@pytest.mark.parametrize('name', make_index.made_files())
def test_made_files_are_those_of_the_catalogue(name):
    """Otherwise: .venv/bin/python tools/make_index.py"""
    assert (ROOT / name).read_text(encoding='utf-8') == make_index.made_files()[name]


def test_results_page_has_every_row_once_and_labels_its_numbers():
    page = (ROOT / 'docs/results.md').read_text(encoding='utf-8')
    rows = [line.split(' | ') for line in page.splitlines() if re.match(r'\| (?!row)\w', line)]
    assert [cells[0].removeprefix('| ') for cells in rows] == [
        recipe.id
        for task in ('cls', 'det', 'seg', 'pose', 'video')
        for recipe in recipes()
        if recipe.task == task
    ]
    assert len(rows) == 95
    assert all('not run' in cells for cells in rows)
    assert '**published**' in page.split('##')[0]
    for cells, recipe in zip(rows, sorted_recipes(), strict=True):
        for value in recipe.metrics.values():
            assert f'{value:.1f}' in cells or f'{value:.2f}' in cells, recipe.id
        if recipe.config:
            assert f'# {recipe.id}\n' in page
            assert f'configs/{recipe.config}' in page
    for link in re.findall(r'\]\(([\w.]+)\)', page):
        assert (ROOT / 'docs' / link).is_file()


def sorted_recipes() -> list:
    order = ('cls', 'det', 'seg', 'pose', 'video')
    return sorted(recipes(), key=lambda recipe: order.index(recipe.task))
