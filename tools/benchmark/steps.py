# SPDX-License-Identifier: Apache-2.0
"""Whole training steps and tests of the recipes under mmengine's runner, data pipeline included.

``python tools/benchmark/steps.py --task det video --mode training inference``
``python tools/benchmark/steps.py --task video --rounds 1 --iterations 300 --curve curve.png``

Each variant runs the same recipe from the same weights on the same samples; rounds alternate. A
row says samples per second end to end beside the same recipe with the reference backbone, and
where a step goes: waiting for data, forward, backward, optimizer. Data: ``UNIFORMER_DATA`` if it
is set, else the synthetic world. On a CPU the quickstart configs stand for the recipes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark import plots
from tools.benchmark.rows import describe
from tools.benchmark.running import (
    MODES,
    SPEED_HOOKS,
    Measured,
    Recipe,
    common_weights,
    run,
)
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.evaluation.running.protocol import data_root
from uniformer_mm.files import write_text
from uniformer_mm.synth import make_data

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = {'classes': ('circle', 'square', 'triangle', 'star', 'ring')}
RECIPES = {
    'det': Recipe(
        'mmdet',
        'configs/det/mask_rcnn_uniformer_s.py',
        'configs/det/quickstart.py',
        float32_modules=(
            'rpn_head.rpn_cls',
            'rpn_head.rpn_reg',
            'roi_head.bbox_roi_extractor',
            'roi_head.mask_roi_extractor',
        ),
        synthetic=SYNTHETIC,
    ),
    'seg': Recipe('mmseg', 'configs/seg/upernet_uniformer_s.py', 'configs/seg/quickstart.py'),
    'pose': Recipe(
        'mmpose',
        'configs/pose/td_hm_uniformer_s_256x192.py',
        'configs/pose/quickstart.py',
        float32_modules=('head.final_layer',),
    ),
    'video': Recipe(
        'mmaction',
        'configs/video/uniformer_s_16x4_k400.py',
        'configs/video/quickstart_kinetics.py',
        float32_modules=('cls_head',),
    ),
    'ssv2': Recipe(
        'mmaction',
        'configs/video/uniformer_s_16_ssv2.py',
        'configs/video/quickstart_ssv2.py',
        float32_modules=('cls_head',),
    ),
    'cls': Recipe('mmpretrain', 'configs/cls/uniformer_s_in1k.py', 'configs/cls/quickstart.py'),
}
VARIANTS = (
    'reference',
    'mmaction2',
    'ours',
    'ours-unfused-adamw',
    'ours-autocast-stream',
    *SPEED_HOOKS,
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: Task, mode and number format.
        variant: Which backbone, and what else differs.
        rate: Samples per second (images, or clips that enter the network), median of the rounds.
        low: Slowest round.
        high: Fastest round.
        shares: Where a step goes, as shares of it.
        memory_mib: Peak of the GPU's memory; 0 on a CPU.
        losses: Of each step of the first round.
    """

    work: str
    variant: str
    rate: float
    low: float
    high: float
    shares: dict[str, float]
    memory_mib: float
    losses: list[float]


# CUDA graphs are recorded in the step after two as usual.
GRAPH_WARMUP = 3


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line; lists multiply out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', nargs='+', choices=RECIPES, default=['det'])
    parser.add_argument('--config', type=Path, help="instead of the task's recipe")
    parser.add_argument('--mode', nargs='+', choices=MODES, default=['training'])
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'recipe'), default='float32')
    parser.add_argument('--variant', nargs='+', choices=VARIANTS, default=['reference', 'ours'])
    parser.add_argument(
        '--emulate',
        action='store_true',
        help='bfloat16 as a GPU computes it, on a processor without such instructions: slow',
    )
    parser.add_argument('--iterations', type=int, default=10, help='measured steps of a round')
    parser.add_argument('--warmup', type=int, default=GRAPH_WARMUP, help='steps before them')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--batch-size', type=int)
    parser.add_argument('--workers', type=int, help='processes that load data')
    parser.add_argument('--options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--curve', type=Path, help='figure of the losses of the first round')
    args = parser.parse_args(arguments)
    if 'ours-graphs' in args.variant and args.warmup < GRAPH_WARMUP:
        parser.error(
            f'--warmup {args.warmup} would time the recording of ours-graphs; give {GRAPH_WARMUP} '
            'or more.'
        )
    if args.emulate and (args.dtype != 'bfloat16' or 'mmaction2' in args.variant):
        parser.error("--emulate is for --dtype bfloat16, and mmaction2's network cannot do it")
    return args


def settings(recipe: Recipe, args: argparse.Namespace, data: Path, synthetic: bool) -> Config:
    """The recipe's config with the user's choices."""
    path = args.config or (recipe.full if torch.cuda.is_available() else recipe.quickstart)
    with data_root(data):
        config = Config.fromfile(ROOT / path)
    for name in ('train_dataloader', 'test_dataloader'):
        loader = config[name]
        if args.batch_size and name == 'train_dataloader':
            loader.batch_size = args.batch_size
        if args.workers is not None:
            loader.num_workers = args.workers
        loader.persistent_workers = loader.num_workers > 0
        if synthetic and recipe.synthetic:
            loader.dataset.metainfo = dict(recipe.synthetic)
    config.merge_from_dict(args.options)
    return config


def measure(
    task: str, mode: str, args: argparse.Namespace, data: Path, synthetic: bool
) -> list[Row]:
    """Rows of one task: variants in turn, round by round."""
    recipe, found = RECIPES[task], {}
    state = common_weights(settings(recipe, args, data, synthetic))
    for _ in range(args.rounds):
        for variant in args.variant:
            if variant == 'mmaction2' and recipe.package != 'mmaction':
                continue
            config = settings(recipe, args, data, synthetic)
            with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
                measured = run(config, recipe, variant, mode, args, Path(work), state)
            found.setdefault(variant, []).append(measured)
    rows = []
    for variant, rounds in found.items():
        rates = [measured.rate for measured in rounds]
        rows.append(
            Row(
                f'{task} {mode} {args.dtype}',
                variant,
                statistics.median(rates),
                min(rates),
                max(rates),
                _mean_shares(rounds),
                max(measured.memory_mib for measured in rounds),
                rounds[0].losses,
            )
        )
    return rows


def _mean_shares(rounds: list[Measured]) -> dict[str, float]:
    names = rounds[0].shares
    return {name: statistics.mean(r.shares[name] for r in rounds) for name in names}


def table(rows: list[Row], title: str) -> Table:
    """The rows as text."""
    result = Table('work', 'variant', 'samples/s (rounds)', 'x reference', title=title)
    parts = list(dict.fromkeys(name for row in rows for name in row.shares))
    for name in (*parts, 'memory MiB'):
        result.add_column(name, justify='right')
    reference = {row.work: row.rate for row in rows if row.variant == 'reference'}
    for row in rows:
        base = reference.get(row.work)
        result.add_row(
            row.work,
            row.variant,
            f'{row.rate:.2f} ({row.low:.2f} to {row.high:.2f})',
            f'{row.rate / base:.2f}' if base else '',
            *(f'{row.shares[name]:.0%}' if name in row.shares else '' for name in parts),
            f'{row.memory_mib:.0f}',
        )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measure and report."""
    args = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    MMLogger.get_current_instance().setLevel('ERROR')
    rows: list[Row] = []
    emulation = patch.object(OfficialUniFormer, 'autocast_as_on_gpu', args.emulate)
    with tempfile.TemporaryDirectory() as folder, emulation:
        root = os.environ.get('UNIFORMER_DATA')
        if root is None:
            make_data(folder, tasks=args.task)
        for task in args.task:
            import_module(f'{RECIPES[task].package}.utils').register_all_modules(False)
            for mode in args.mode:
                console.print(f'{task} {mode} ...', style='dim')
                rows += measure(task, mode, args, Path(root or folder), root is None)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    title = describe(device, torch.get_num_threads())
    console.print(table(rows, title))
    if args.json:
        record = {'machine': title, 'rows': [asdict(row) for row in rows]}
        write_text(args.json, json.dumps(record, indent=1) + '\n')
    if args.curve:
        plots.losses({f'{r.work}, {r.variant}': r.losses for r in rows if r.losses}, args.curve)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
