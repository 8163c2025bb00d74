# SPDX-License-Identifier: Apache-2.0
"""The demo: progress without a terminal, curves, the commands it ends with, all five runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import demo_curves
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tools import demo
from uniformer_mm.cli import build_parser

from ..conftest import ROOT


def test_how_much_of_a_training_is_done() -> None:
    epochs = 'INFO - Epoch(train)  [3][10/40]  lr: 1e-3  loss: 0.5'
    assert demo.train_share(epochs, 8) == pytest.approx(2.25 / 8)
    assert demo.train_share('INFO - Iter(train) [ 30/300]  lr: 1e-3', None) == pytest.approx(0.1)
    assert demo.train_share('INFO - Epoch(val)  [3][10/40]', 8) is None


def test_a_pipe_gets_a_line_for_each_step() -> None:
    out = io.StringIO()
    seen = []

    def shares():
        for step in range(101):
            yield step / 100, f'{1 - step / 200:.3f}'
            seen.append(out.getvalue().count('\n'))

    demo.show_progress(shares(), Console(file=out))
    lines = out.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[0].split()[0] == '0%' and lines[-1].split()[0] == '100%'
    assert lines[-1].endswith('loss 0.500')
    # Each is written when it is due, not at the end.
    assert seen[50] >= 10


def test_curves_over_iterations(tmp_path) -> None:
    folder = tmp_path / 'run' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [
        {'loss': 2 - step / 100, 'epoch': step // 20 + 1, 'step': step + 1} for step in range(100)
    ]
    lines += [{'coco/AP': epoch / 10, 'step': epoch} for epoch in (1, 3, 5)]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    # A test's file has metrics alone, and lies deeper.
    (tmp_path / 'test' / 'run' / 'vis_data').mkdir(parents=True)
    (tmp_path / 'test' / 'run' / 'vis_data' / 'scalars.json').write_text('{"coco/AP": 0.9}')
    scalars = demo_curves.read_scalars(tmp_path)
    assert scalars == lines
    path = tmp_path / 'curves.png'
    demo_curves.draw_curves(scalars, {'coco/AP': 'keypoint AP'}, path)
    image = np.asarray(Image.open(path).convert('RGB')).astype(int)
    blue = (np.abs(image - (0x1F, 0x4F, 0xA3)).sum(-1) < 30).nonzero()
    # The loss falls from left to right, on the left half.
    left = blue[0][blue[1] < np.percentile(blue[1], 10)].mean()
    right = blue[0][blue[1] > np.percentile(blue[1], 90)].mean()
    assert right > left + 50
    assert blue[1].max() < image.shape[1] / 2
    assert not list(tmp_path.glob('*partial*'))


def test_smoothing_keeps_a_line() -> None:
    line = np.arange(200.0)
    np.testing.assert_allclose(demo_curves.smoothed(line)[10:-10], line[10:-10])


@pytest.mark.parametrize('name', demo.TASKS)
def test_the_demo_ends_with_a_command_that_predicts(name, tmp_path) -> None:
    checkpoint = demo.WORK / name / 'epoch_1.pth'
    commands = demo.next_commands(name, demo.TASKS[name], checkpoint)
    (line,) = [one for one in commands if 'uniformer-mm predict' in one]
    words = line.partition('#')[0].split()
    assert words[0] == '.venv/bin/uniformer-mm'
    args = build_parser(words[1:]).parse_args(words[1:])
    assert args.weights == f'work_dirs/demo/{name}/epoch_1.pth'
    assert args.inputs[0].startswith('work_dirs/demo/data/')


@pytest.mark.parametrize('name', demo.TASKS)
def test_the_samples_that_it_names_are_there(name, world) -> None:
    assert any((world / demo.TASKS[name].samples).iterdir())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('name', demo.TASKS)
def test_a_demo_from_beginning_to_end(name, tmp_path) -> None:
    command = [sys.executable, str(ROOT / 'tools/demo.py'), '--task', name, '--work', str(tmp_path)]
    done = subprocess.run(
        command,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert sum('loss' in line and '%' in line for line in lines) >= 15
    for file in ('predictions.png', 'curves.png'):
        assert np.asarray(Image.open(tmp_path / name / file)).std() > 10
    assert (tmp_path / name / 'predictions.mp4').exists() == (name == 'video')
    assert_better_than_chance(done.stdout)
    # The command that it names, on what it made.
    (line,) = [one for one in lines if 'uniformer-mm predict' in one]
    words = line.partition('#')[0].split()[1:]
    done = subprocess.run(
        [sys.executable, '-m', 'uniformer_mm', *words, '--out', str(tmp_path / 'out')],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / 'out' / 'predictions.json').exists()


def assert_better_than_chance(text: str) -> None:
    """Every row of the table of metrics that names both."""
    compared = 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split('│')[1:-1]]
        if len(cells) == 4 and cells[2] not in ('-', 'chance'):
            assert float(cells[1]) > float(cells[2]), line
            compared += 1
    assert compared


def test_the_work_folder_of_the_demo_is_ignored() -> None:
    assert '/work_dirs/' in Path(ROOT, '.gitignore').read_text().splitlines()
