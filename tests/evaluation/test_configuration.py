# SPDX-License-Identifier: Apache-2.0
"""What a test's configuration keeps of the recipe, and what its digest depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniformer_mm.evaluation.running.protocol import (
    Choices,
    build_config,
    classes_of,
    config_digest,
    published_files,
)
from uniformer_mm.evaluation.running.reproduce import folder_for, protocol_text
from uniformer_mm.evaluation.running.reproduce import tests_of as find_tests
from uniformer_mm.recipes import config_path, recipes

from ..conftest import ROOT

TASKS = ('cls', 'det', 'seg', 'pose', 'video')
BUILT = [recipe for recipe in recipes() if recipe.config]


def build(name: str, data: Path, folder: Path, **choices):
    (test,) = find_tests(name)
    extra = {'boxes': 'gt'} if test.task == 'pose' else {}
    return build_config(test.config, test.task, Choices(data=data, **extra | choices), folder)


@pytest.mark.parametrize('recipe', BUILT, ids=[recipe.id for recipe in BUILT])
def test_every_row_has_a_test(recipe, tmp_path):
    choices = Choices(data=tmp_path, boxes='gt' if recipe.task == 'pose' else None)
    config = build_config(config_path(recipe), recipe.task, choices, tmp_path)
    assert config.test_cfg.type == 'uniformer_mm.ResumableTestLoop'
    assert 'train_dataloader' not in config and 'optim_wrapper' not in config
    assert 'init_cfg' not in config.model.backbone
    kinds = [step['type'] for step in config.test_dataloader.dataset.pipeline]
    if recipe.task == 'video':
        assert 'uniformer_mm.StackViews' in kinds
        assert config.model.cls_head.average_clips is None
        assert classes_of(config) == recipe.row.classes
        views, crops = map(int, recipe.row.views.split('x'))
        steps = config.test_dataloader.dataset.pipeline
        sampler = next(step for step in steps if 'SampleFrames' in step['type'])
        fused = steps[kinds.index('uniformer_mm.StackViews')]
        assert (sampler.get('num_clips', 1), fused['num_crops']) == (views, crops)
        assert fused['size'] == fused['short_side'] == int(recipe.row.size)
    if recipe.task == 'seg' and 'mIoU_ms' in recipe.metrics:
        choices = Choices(data=tmp_path, multi_scale=True)
        scales = build_config(config_path(recipe), 'seg', choices, tmp_path)
        assert scales.model.type == 'uniformer_mm.RunningSegTTA'
        assert scales.model.module.backbone == config.model.backbone


def test_the_page_counts_the_files_of_each_list():
    page = (ROOT / 'docs/evaluation.md').read_text(encoding='utf-8')
    for recipe in recipes():
        assert f'{published_files(recipe):,}' in page


@pytest.mark.parametrize('name', ['cls/s', 'det/mask_rcnn_s_h14_1x', 'pose/s_256x192', 'cls/b'])
def test_the_digest_does_not_know_where_things_lie(name, tmp_path):
    digests = set()
    for place in ('here', 'over/there'):
        data, folder = tmp_path / place / 'data', tmp_path / place / 'work'
        digests.add(config_digest(build(name, data, folder), folder, data))
    assert len(digests) == 1
    data, folder = tmp_path / 'd', tmp_path / 'w'
    for changes in ({'batch_size': 3, 'workers': 0}, {'limit': 3}):
        digests.add(config_digest(build(name, data, folder, **changes), folder, data))
    assert len(digests) == 1
    changed = build(name, data, folder, overrides={'model.backbone.head_dim': 32})
    assert config_digest(changed, folder, data) not in digests


def test_other_choices_go_to_other_folders(tmp_path):
    (test,) = find_tests('seg/upernet_s_g')
    folders = [
        folder_for(test, Choices(data=tmp_path, **options), tmp_path)
        for options in (
            {}, {'multi_scale': True}, {'limit': 5}, {'limit': 5, 'seed': 1}, {'stock': True},
            {'overrides': {'model.backbone.window_size': 7}},
        )
    ]  # fmt: skip
    assert len(set(folders)) == len(folders)
    assert folders[0] == tmp_path / 'seg-upernet_s_g' / 'official'
    neutral = {'batch_size': 4, 'workers': 1, 'overrides': {'test_dataloader.pin_memory': True}}
    assert folder_for(test, Choices(data=tmp_path, **neutral), tmp_path) == folders[0]
    assert protocol_text(Choices(data=tmp_path, **neutral)) == {}
