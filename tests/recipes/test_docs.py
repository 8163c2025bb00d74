# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/recipes.md and docs/results.md run, and name files that exist."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine import Config

from tests.conftest import ROOT
from tools import demo
from uniformer_mm.cli import main
from uniformer_mm.recipes import find_recipe
from uniformer_mm.weights.zoo import find_row


def command_lines(page: str, program: str) -> list[str]:
    """Lines of the page's shell blocks that call a program."""
    text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
    blocks = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(program)]


@pytest.mark.parametrize('line', command_lines('recipes.md', 'uniformer-mm '))
def test_our_commands_run(line, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line, comments=True)[1:]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize('program', ['mim train', 'mim test'])
def test_commands_of_results_name_configs_and_weights_that_exist(program):
    lines = command_lines('results.md', program)
    assert len(lines) > 50
    for line in lines:
        _, _, toolbox, config, *options = shlex.split(line)
        assert (ROOT / config).is_file(), line
        assert find_recipe(config).toolbox == toolbox
        if '--checkpoint' in options:
            checkpoint = options[options.index('--checkpoint') + 1]
            assert checkpoint == 'CHECKPOINT' or find_row(checkpoint).released, line


def test_mim_knows_the_options_of_the_commands():
    """Names that a later mim may change."""
    pytest.importorskip('mim', reason='openmim is not installed; make setup installs it')
    test, train = (
        {name for parameter in import_module(module).cli.params for name in parameter.opts}
        for module in ('mim.commands.test', 'mim.commands.train')
    )
    assert '--checkpoint' in test
    assert {'--launcher', '--gpus', '--gpus-per-node', '--partition'} <= train


@pytest.mark.parametrize('has_gpu', [True, False])
def test_the_demo_s_next_command_runs_on_this_machine(has_gpu: bool, monkeypatch) -> None:
    """mmengine's fp16 needs a GPU; recipes in float32 need no change."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    for name, task in demo.TASKS.items():
        train, *_ = demo.next_commands(name, task, demo.WORK / 'epoch_1.pth')
        fp16 = Config.fromfile(ROOT / task.recipe).optim_wrapper.type == 'AmpOptimWrapper'
        assert ('optim_wrapper.type=OptimWrapper' in train) == (fp16 and not has_gpu), name
        assert task.recipe in train
    assert fp16
