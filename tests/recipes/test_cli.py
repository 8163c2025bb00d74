# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm recipes | config``."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config

from uniformer_mm.cli import main
from uniformer_mm.recipes import config_root, recipes
from uniformer_mm.recipes.cli import commands


@pytest.fixture
def run(capsys):
    """Run a command; hand back its status and what it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return call


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ([], lambda r: True),
        (['--task', 'cls'], lambda r: r.id.startswith(('cls', 'om/'))),
        (['--task', 'video', '--arch', 'base'], lambda r: r.row.ndim == 3 and r.arch == 'base'),
    ],
)
def test_list(run, options, expected):
    status, text = run('recipes', *options)
    wanted = [recipe.id for recipe in recipes() if expected(recipe)]
    lines = [line for line in text.splitlines()[1:] if line.strip()]
    assert status == 0
    assert [line.split()[0] for line in lines[:-1]] == wanted
    assert lines[-1].startswith(f'{len(wanted)} recipes; all numbers as published, ours: not run')


def test_list_marks_wrong_flops_and_names_configs(run):
    _, text = run('recipes')
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert '12.6G (wrong)' in lines['cls_tl/l_ls_224']
    assert '(wrong)' not in lines['cls/b']
    assert 'det/cascade_mask_rcnn_uniformer_b_3x_ms.py' in lines['det/cascade_b_h14_3x_ms']
    assert 'bbox_mAP 53.8, segm_mAP 46.4' in lines['det/cascade_b_h14_3x_ms']
    assert 'cls/uniformer_xxs_128_in1k.py' in lines['cls/xxs_128']


def facts(text: str) -> list[tuple[str, str]]:
    return [tuple(part.strip() for part in line.split('  ', 1)) for line in text.splitlines()]


def test_show(run):
    status, text = run('recipes', 'show', 'seg/upernet_s_h32')
    known = facts(text)
    root = config_root()
    assert status == 0
    for fact in (
        ('config', f'{root}/seg/upernet_uniformer_s_h32.py'),
        ('attention', 'hybrid32'),
        # One training with global attention.
        ('train', f'mim train mmseg {root}/seg/upernet_uniformer_s.py --launcher pytorch --gpus 8'),
        ('published', 'mIoU 47.0, mIoU_ms 48.5'),
        ('published', 'parameters 52M, FLOPs 955G at 512x2048'),
        ('ours', 'not run'),
        ('batch', '16 on 8 GPUs (2 on each)'),
    ):
        assert fact in known
    commands = dict(known)
    assert commands['test'].endswith(
        'upernet_uniformer_s_h32.py --checkpoint uniformer://seg/upernet_s_h32'
    )
    assert commands['test, multi-scale'] == commands['test'] + ' --tta'
    assert any(name == 'remark' and 'tested in three ways' in value for name, value in known)


def test_show_a_row_of_several_nodes_and_one_without_weights(run):
    _, text = run('recipes', 'show', 'vid/k600_b_32x4')
    assert '--launcher slurm --partition NAME --gpus 32 --gpus-per-node 8' in text
    assert 'top1 84.8 (abstract of the paper' in text
    _, text = run('recipes', 'show', 'seg/fpn_s_h14')
    assert ('weights', 'never released') in facts(text)
    assert 'published FLOPs are wrong' in text


def test_printed_commands_train_with_the_published_batch():
    """GPUs of the command times the batch of its config is the product that the config names."""
    trained = [recipe for recipe in recipes() if recipe.training]
    assert len(trained) > 40
    for recipe in trained:
        train = commands(recipe, config_root())['train'].split()
        config = Config.fromfile(next(word for word in train if word.endswith('.py')))
        gpus = int(train[train.index('--gpus') + 1])
        batch = gpus * config.train_dataloader.batch_size
        assert batch == config.auto_scale_lr.base_batch_size, recipe.id


def test_config_prints_a_path(run):
    for name in ('seg/fpn_s_g', 'seg/fpn_uniformer_s.py', 'configs/seg/fpn_uniformer_s.py'):
        status, text = run('config', name)
        assert (status, Path(text.strip())) == (0, config_root() / 'seg/fpn_uniformer_s.py')
    status, text = run('config', 'det/quickstart.py')
    assert (status, Path(text.strip())) == (0, config_root() / 'det/quickstart.py')


def test_config_writes_a_leaf_that_works_from_elsewhere(run, tmp_path, monkeypatch):
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    status, text = run('config', 'det/mask_rcnn_s_h14_1x', '--gpus', 1, '--output', 'mine.py')
    assert (status, text.strip()) == (0, 'mine.py')
    cfg, base = (
        Config.fromfile('mine.py'),
        Config.fromfile(config_root() / 'det/mask_rcnn_uniformer_s.py'),
    )
    assert cfg.optim_wrapper.pop('accumulative_counts') == 8
    assert cfg.optim_wrapper == base.optim_wrapper
    assert (cfg.model, cfg.train_cfg) == (base.model, base.train_cfg)
    assert cfg.param_scheduler[0].end == 501 * 8
    assert cfg.param_scheduler[1] == base.param_scheduler[1]
    run('config', 'det/mask_rcnn_s_h14_1x', '--output', 'plain.py')
    assert Config.fromfile('plain.py')._cfg_dict == base._cfg_dict


def test_mistakes_are_one_line(run, tmp_path):
    for arguments, message in (
        (['det/mask_rcnn_s_1x'], 'is no recipe; did you mean one of'),
        (['cls/s', '--gpus', 3], 'must divide the 8 GPUs of the published training'),
        (['cls/s', '--gpus', 2], '--gpus 2 needs --output FILE'),
        (['cls/quickstart.py', '--gpus', 2], 'must divide the 1 GPUs'),
        (['cls_tl/b_224', '--gpus', 2, '--output', tmp_path / 'x.py'], 'this config only tests'),
        (
            ['det/mask_rcnn_uniformer_b_deepspeed.py', '--gpus', 2, '--output', tmp_path / 'x.py'],
            "strategy 'DeepSpeedStrategy' is set in the strategy itself",
        ),
    ):
        status, text = run('config', *arguments)
        assert status == 2 and message in text and 'Traceback' not in text
    assert not list(tmp_path.iterdir()), 'nothing half-written'
