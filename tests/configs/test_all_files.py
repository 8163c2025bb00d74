# SPDX-License-Identifier: Apache-2.0
"""All configs as files: they load from anywhere, belong to a row, and say what to expect."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from uniformer_mm.models.arch import ARCHS
from uniformer_mm.recipes import config_root, find_recipe, recipes

from .leaves import EXTRAS, LEAVES, OWNED, OWNERS, SCOPES, TRAINED, load
from .official import TRAININGS, pretrained


def docstring(leaf: str) -> str:
    text = ast.get_docstring(ast.parse((config_root() / leaf).read_text(encoding='utf-8')))
    return ' '.join(text.split())


def test_every_row_has_its_config():
    absent = [config for recipe in recipes() for config in recipe.configs if config not in LEAVES]
    assert not absent


def test_every_training_is_written_down():
    assert {recipe.training for recipe in recipes()} - {''} == set(TRAININGS)


@pytest.mark.parametrize('leaf', EXTRAS)
def test_a_config_without_a_row_is_a_small_change_of_one(leaf):
    """Options and variants for many GPUs: what they inherit is a config of the catalogue."""
    tree = ast.parse((config_root() / leaf).read_text(encoding='utf-8'))
    (bases,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_'
    ]
    bases = [bases] if isinstance(bases, str) else bases
    folder = (config_root() / leaf).parent
    inherited = [(folder / base).resolve().relative_to(config_root()).as_posix() for base in bases]
    assert any(base in OWNERS or base in EXTRAS for base in inherited)
    assert docstring(leaf).startswith(('Option: ', 'Scale: '))


@pytest.mark.parametrize('leaf', LEAVES)
def test_loads_from_another_directory(leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('UNIFORMER_DATA', '/elsewhere')
    cfg = load(leaf)
    assert cfg.default_scope == SCOPES[leaf.partition('/')[0]]
    assert '/elsewhere/' in str(cfg.val_dataloader), 'UNIFORMER_DATA is the root of all data'
    assert 'data/' not in str(cfg._cfg_dict).replace('/elsewhere/', '')
    assert cfg.test_dataloader.dataset.type == cfg.val_dataloader.dataset.type


@pytest.mark.parametrize('leaf', OWNED)
def test_docstring_says_what_to_expect(leaf):
    recipe, text = OWNERS[leaf], docstring(leaf)
    assert recipe.id in text
    assert 'published' in text
    main = leaf == recipe.config
    for name, value in recipe.metrics.items() if main else ():
        assert re.search(rf'(?<![\d.]){value:.4g}|{value:.1f}|{value:.2f}', text), name
    assert f'mim test {recipe.toolbox} configs/{leaf} ' in text
    if recipe.training == recipe.id:
        assert f'mim train {recipe.toolbox} configs/{leaf}' in text


@pytest.mark.parametrize('leaf', TRAINED)
def test_docstring_states_the_effective_batch(leaf):
    recipe, text = OWNERS[leaf], docstring(leaf)
    stated = re.search(r'(?:(\d+) nodes x )?(\d+) GPUs x (\d+)', text)
    nodes, gpus, each = (int(number or 1) for number in stated.groups())
    assert nodes * gpus == recipe.gpus
    assert nodes * gpus * each == TRAININGS[recipe.id].batch


@pytest.mark.parametrize('leaf', TRAINED)
def test_begins_with_the_published_weights(leaf):
    recipe = OWNERS[leaf]
    expected = pretrained(recipe.id, recipe.arch)
    init = load(leaf).model.backbone.get('init_cfg')
    if expected is None:
        assert init is None or init.type == 'TruncNormal', 'classifiers begin from random weights'
    else:
        assert init == dict(type='UniFormerPretrained', checkpoint=f'uniformer://{expected}')
        assert ARCHS[find_recipe(expected).arch].head_dim == ARCHS[recipe.arch].head_dim


@pytest.mark.parametrize('leaf', TRAINED)
def test_seed_is_the_published_one(leaf):
    seed = OWNERS[leaf].seed
    if seed is not None and leaf.startswith('video'):
        assert load(leaf).randomness.seed == seed
