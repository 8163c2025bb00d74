# SPDX-License-Identifier: Apache-2.0
"""Train, test and look at a small UniFormer in one toolbox, on data made here.

``make demo TASK=det|seg|pose|video|cls`` runs this after the set-up. It trains the task's
quickstart config through ``mim train``, tests the checkpoint through ``mim test``, draws
predictions beside the truth, draws the loss, prints what was reached beside chance and names the
commands that come next. It writes only below ``work_dirs/demo``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from demo_curves import draw_curves, read_scalars
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from uniformer_mm.synth import chance_level

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / 'work_dirs' / 'demo'
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Task:
    """One row of the demo's table.

    Attributes:
        package: The toolbox under the name that mim knows.
        title: What is trained, for people.
        quickstart: The config that is run here.
        recipe: The published recipe that the user would run next.
        samples: Where its validation images or clips are, below the data root.
        metrics: The toolbox's metric name, its name for people, and the value of a perfect score.
    """

    package: str
    title: str
    quickstart: str
    recipe: str
    samples: str
    metrics: tuple[tuple[str, str, float], ...]


TASKS = {
    'det': Task(
        'mmdet',
        'Mask R-CNN with a UniFormer backbone',
        'configs/det/quickstart.py',
        'configs/det/mask_rcnn_uniformer_s.py',
        'coco/val2017',
        (
            ('coco/bbox_mAP', 'box AP', 1),
            ('coco/bbox_mAP_50', 'box AP50', 1),
            ('coco/bbox_mAP_75', 'box AP75', 1),
            ('coco/segm_mAP', 'mask AP', 1),
            ('coco/segm_mAP_50', 'mask AP50', 1),
            ('coco/segm_mAP_75', 'mask AP75', 1),
        ),
    ),
    'seg': Task(
        'mmsegmentation',
        'Semantic FPN with a UniFormer backbone',
        'configs/seg/quickstart.py',
        'configs/seg/fpn_uniformer_s.py',
        'ade/ADEChallengeData2016/images/validation',
        (('mIoU', 'mean IoU', 100), ('aAcc', 'pixel accuracy', 100)),
    ),
    'pose': Task(
        'mmpose',
        'Top-down heatmap pose with a UniFormer backbone',
        'configs/pose/quickstart.py',
        'configs/pose/td_hm_uniformer_s_256x192.py',
        'coco/val2017',
        (('coco/AP', 'keypoint AP', 1), ('coco/AP .5', 'keypoint AP50', 1)),
    ),
    'video': Task(
        'mmaction2',
        'Video classification with the 3-D UniFormer',
        'configs/video/quickstart_kinetics.py',
        'configs/video/uniformer_s_16x4_k400.py',
        'kinetics400/videos_val/falling',
        (('acc/top1', 'top-1 accuracy', 1),),
    ),
    'cls': Task(
        'mmpretrain',
        'Image classification with UniFormer',
        'configs/cls/quickstart.py',
        'configs/cls/uniformer_s_in1k.py',
        'imagenet/val/dotted_circle',
        (('accuracy/top1', 'top-1 accuracy', 100),),
    ),
}


class DemoError(RuntimeError):
    """A step that did not work, in words for the user."""


def stream(command: list[str], data_root: Path, log: Path) -> Iterator[str]:
    """Run ``command`` from outside the repository's root, yielding and logging its output.

    Raises:
        DemoError: The command failed; the end of its output is part of the message.
    """
    environment = os.environ | {'UNIFORMER_DATA': str(data_root), 'PYTHONWARNINGS': 'ignore'}
    tail: list[str] = []
    with log.open('w') as file:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                tail = [*tail[-19:], line]
                yield line
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
            status = process.wait()
    if status:
        raise DemoError(f'{" ".join(command)} failed; see {log}.\n{"".join(tail)}')


TRAIN_LINE = re.compile(r'(Epoch|Iter)\(train\)\s+\[\s*(\d+)(?:\]\[\s*(\d+))?/\s*(\d+)\]')
LOSS = re.compile(r'\bloss: ([\d.]+)')
# Of the training; a log without a terminal gets a line each time as much is done.
STEP = 0.05


def train_share(line: str, max_epochs: int | None) -> float | None:
    """How much of the training a log line says is done, 0 to 1; None for other lines."""
    match = TRAIN_LINE.search(line)
    if match is None:
        return None
    kind, first, within, total = match.groups()
    if kind == 'Iter':
        return int(first) / int(total)
    return (int(first) - 1 + int(within) / int(total)) / max_epochs


def show_progress(shares: Iterator[tuple[float, str]], console: Console) -> None:
    """A bar on a terminal, else a line for every :data:`STEP`.

    Args:
        shares: How much is done, 0 to 1, and the loss in words.
        console: Where it is shown.
    """
    if console.is_terminal:
        columns = (BarColumn(), '{task.percentage:>3.0f}%', TimeElapsedColumn())
        columns += (TimeRemainingColumn(), TextColumn('loss {task.fields[loss]}'))
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task('train', total=1.0, loss='-')
            for share, loss in shares:
                progress.update(bar, completed=share, loss=loss)
        return
    started, told = time.monotonic(), -1
    for share, loss in shares:
        steps = int(share / STEP + 1e-6)
        if steps > told:
            told = steps
            say(console, f'  {share:4.0%}  {time.monotonic() - started:4.0f} s  loss {loss}')


def say(console: Console, text: str) -> None:
    """A line that is seen at once, also in a pipe."""
    console.print(text, highlight=False, soft_wrap=True)
    console.file.flush()


def train(task: Task, work: Path, data_root: Path, console: Console) -> Path:
    """Train through mim, with a progress bar and the loss; returns the last checkpoint."""
    config = ROOT / task.quickstart
    command = [str(BIN / 'mim'), 'train', task.package, str(config)]
    command += ['--gpus', '0', '--work-dir', str(work)]
    say(console, f'[bold]Training:[/bold] mim train {task.package} {task.quickstart}')
    max_epochs = Config.fromfile(config).train_cfg.get('max_epochs')

    def shares() -> Iterator[tuple[float, str]]:
        for line in stream(command, data_root, work / 'train.log'):
            share = train_share(line, max_epochs)
            if share is not None:
                loss = LOSS.search(line)
                yield share, loss.group(1) if loss else '-'

    show_progress(shares(), console)
    return Path((work / 'last_checkpoint').read_text().strip())


def test(task: Task, work: Path, checkpoint: Path, data_root: Path, console: Console) -> dict:
    """Test through mim; returns the metrics that the toolbox wrote."""
    say(console, f'[bold]Testing:[/bold] mim test {task.package} {task.quickstart}')
    folder = work / 'test'
    command = [str(BIN / 'mim'), 'test', task.package, str(ROOT / task.quickstart)]
    command += ['--checkpoint', str(checkpoint), '--gpus', '0', '--work-dir', str(folder)]
    with console.status('testing'):
        for _ in stream(command, data_root, work / 'test.log'):
            pass
    newest = max(folder.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text().splitlines()[-1])


def draw(name: str, task: Task, work: Path, checkpoint: Path, data_root: Path, console: Console):
    """Draw predictions beside what is true, and the curves of the training; returns the files."""
    say(console, '[bold]Drawing:[/bold] predictions beside what is true, and the loss')
    command = [sys.executable, str(ROOT / 'tools' / 'demo_images.py'), name]
    command += [str(ROOT / task.quickstart), str(checkpoint), str(work)]
    with console.status('drawing'):
        for _ in stream(command, data_root, work / 'images.log'):
            pass
    curves = work / 'curves.png'
    draw_curves(read_scalars(work), {key: label for key, label, _ in task.metrics}, curves)
    return [*sorted(work.glob('predictions.*')), curves]


def metric_table(task: Task, metrics: dict, chance: dict) -> Table:
    """What was reached beside chance and the perfect score."""
    table = Table(title=f'{task.title}, validation split of the embedded data')
    for heading in ('metric', 'reached', 'chance', 'perfect'):
        table.add_column(heading, justify='left' if heading == 'metric' else 'right')
    for key, label, best in task.metrics:
        if key not in metrics:
            raise DemoError(f'{task.package} reported no {key!r}, only {sorted(metrics)}.')
        guess = chance.get(key)
        cells = [f'{metrics[key] / best:.3f}', '-' if guess is None else f'{guess / best:.3f}']
        table.add_row(label, *cells, '1.000')
    return table


def next_commands(name: str, task: Task, checkpoint: Path) -> list[str]:
    """Commands that a user would type after this, on this machine."""
    others = [other for other in TASKS if other != name]
    train = f'UNIFORMER_DATA=/path/to/data .venv/bin/mim train {task.package} {task.recipe}'
    fp16 = Config.fromfile(ROOT / task.recipe).optim_wrapper.type == 'AmpOptimWrapper'
    if fp16 and not torch.cuda.is_available():
        # mmengine's fp16 needs a GPU.
        train += ' --cfg-options optim_wrapper.type=OptimWrapper'
    # <work>/<task>/<checkpoint>, beside the data.
    data, weights = shown(checkpoint.parents[1] / 'data'), shown(checkpoint)
    return [
        train,
        f'.venv/bin/uniformer-mm predict {data}/{task.samples} --weights {weights}   # or your own',
        f'UNIFORMER_DATA={data} .venv/bin/mim test {task.package} '
        f'{task.quickstart} --checkpoint {weights} --gpus 0',
        f'make demo TASK={others[0]}   # or {", ".join(others[1:])}',
    ]


def shown(path: Path) -> Path:
    """A path as a user would type it in the repository's root."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def run(name: str, root: Path, console: Console) -> None:
    """Make the data, train, test, draw, report; everything below ``root``."""
    task = TASKS[name]
    started = time.monotonic()
    work, data_root = root / name, root / 'data'
    console.rule(f'{task.title}: train, test, look')
    say(console, f'[bold]Data:[/bold] uniformer-mm make-data {shown(data_root)}')
    make_data = [str(BIN / 'uniformer-mm'), 'make-data', str(data_root), '--tasks', name]
    if subprocess.run(make_data, check=False).returncode:
        raise DemoError(f'{" ".join(make_data)} failed; see above.')
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    checkpoint = train(task, work, data_root, console)
    metrics = test(task, work, checkpoint, data_root, console)
    files = draw(name, task, work, checkpoint, data_root, console)
    console.print(metric_table(task, metrics, chance_level(name, data_root)))
    for file in files:
        say(console, f'Look at {shown(file)}')
    say(console, f'Logs and checkpoint: {shown(work)}')
    say(console, f'Done in {time.monotonic() - started:.0f} s. Next:')
    for command in next_commands(name, task, checkpoint):
        say(console, f'  {command}')


def main() -> int:
    """Parse the task and run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', choices=TASKS, default='det')
    parser.add_argument(
        '--work',
        type=Path,
        default=WORK,
        help='folder that everything goes to (default: %(default)s)',
    )
    arguments = parser.parse_args()
    console = Console()
    try:
        run(arguments.task, arguments.work.absolute(), console)
    except (DemoError, ValueError) as error:
        console.print(f'[red]{escape(str(error))}[/red]', highlight=False)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
