# SPDX-License-Identifier: Apache-2.0
"""What one sample of a recipe costs before it reaches the network, transform by transform.

``python tools/benchmark/data.py configs/det/mask_rcnn_uniformer_s.py --samples 32``
``python tools/benchmark/data.py configs/video/uniformer_s_16x8_k400.py --split test \
    --instead uniformer_mm.DecordDecodeOnce=DecordDecode``

One process, without batches; a loader with K processes hands on K times as many samples, as long as
there are cores. Data: ``UNIFORMER_DATA``. With ``--instead`` the same samples, with the same random
numbers, also go through the recipe with one kind of transform replaced, in turns, and the report
says whether the network would get the same input.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.rows import describe
from uniformer_mm.files import write_text

SPLITS = ('train', 'val', 'test')
SEED = 0
REST = 'list, copies'


@dataclass(frozen=True)
class Row:
    """One transform, or the whole sample.

    Attributes:
        name: Type of the transform; :data:`REST` is what lies between, ``'sample'`` the sum.
        ms: Median over the samples.
        instead_ms: With the replacement, if there is one.
    """

    name: str
    ms: float
    instead_ms: float | None


class Timed:
    """A transform that writes down how long each call took."""

    def __init__(self, transform: Callable[[dict], object], spent: list[float]) -> None:
        self.transform, self.spent = transform, spent

    def __call__(self, results: dict) -> object:
        """Run the transform."""
        began = time.perf_counter()
        changed = self.transform(results)
        self.spent[-1] += time.perf_counter() - began
        return changed


class Pipeline:
    """The data set of a split, with a clock at each transform.

    Args:
        config: The recipe.
        split: One of :data:`SPLITS`.

    Raises:
        ValueError: Where the recipe has no such split.
    """

    def __init__(self, config: Config, split: str) -> None:
        loader = config.get(f'{split}_dataloader')
        if loader is None:
            raise ValueError(f'{config.filename} has no {split}_dataloader; choose another --split')
        self.dataset: BaseDataset = DATASETS.build(loader.dataset)
        self.spent: dict[str, list[float]] = {}
        for transform, holder, index in self._transforms():
            name = f'{index}. {type(transform).__name__}'
            holder[index] = Timed(transform, self.spent.setdefault(name, []))
        self.total: list[float] = []

    def _transforms(self) -> list[tuple[Callable, list, int]]:
        innermost = self.dataset
        while hasattr(innermost, 'dataset'):
            innermost = innermost.dataset
        transforms = innermost.pipeline.transforms
        return [(transform, transforms, index) for index, transform in enumerate(transforms)]

    def sample(self, index: int) -> object:
        """Read one sample, always with the same random numbers."""
        random.seed(SEED + index)
        np.random.seed(SEED + index)
        torch.manual_seed(SEED + index)
        for spent in self.spent.values():
            spent.append(0.0)
        began = time.perf_counter()
        result = self.dataset[index]
        self.total.append(time.perf_counter() - began)
        return result['inputs']

    def medians(self) -> dict[str, float]:
        """Milliseconds by transform, what lies between, and in all."""
        parts = zip(*self.spent.values(), strict=True)
        between = [total - sum(part) for total, part in zip(self.total, parts, strict=True)]
        times = {**self.spent, REST: between, 'sample': self.total}
        return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def replace(value: object, old: str, new: str) -> tuple[object, int]:
    """Give each dict of type ``old`` the type ``new``; also how many there were."""
    if isinstance(value, dict):
        hit = value.get('type') == old
        pairs = {key: replace(item, old, new) for key, item in value.items()}
        changed = {key: item for key, (item, _) in pairs.items()}
        if hit:
            changed['type'] = new
        return type(value)(changed), hit + sum(count for _, count in pairs.values())
    if isinstance(value, (list, tuple)):
        items = [replace(item, old, new) for item in value]
        return type(value)(item for item, _ in items), sum(count for _, count in items)
    return value, 0


def same(a: object, b: object) -> bool:
    """Whether two inputs of a network are equal bit by bit."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b)


def measure(args: argparse.Namespace) -> tuple[list[Row], int, int]:
    """Rows, the number of samples, and how many of them differ with the replacement."""
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.options)
    scope = config.default_scope
    import_module(f'{scope}.utils').register_all_modules(False)
    init_default_scope(scope)
    pipelines = [Pipeline(config, args.split)]
    if args.instead:
        old, new = args.instead
        key = f'{args.split}_dataloader'
        config[key], count = replace(config[key], old, new)
        if not count:
            raise ValueError(
                f'--instead: no transform of {key} in {args.config} has type {old!r}; the types '
                f'are {", ".join(pipelines[0].spent)}'
            )
        pipelines.append(Pipeline(config, args.split))
    length = len(pipelines[0].dataset)
    number = min(args.samples, length)
    indices = [position * length // number for position in range(number)]
    different = 0
    for index in indices:
        # One kind that always came second would read its file from the system's cache.
        inputs = [pipeline.sample(index) for pipeline in pipelines]
        different += len(pipelines) > 1 and not same(*inputs)
        pipelines.reverse()
    if number % 2:
        pipelines.reverse()
    first, *second = [pipeline.medians() for pipeline in pipelines]
    others = list(second[0].values()) if second else [None] * len(first)
    rows = [Row(name, ms, other) for (name, ms), other in zip(first.items(), others, strict=True)]
    return rows, number, different


def table(rows: list[Row], title: str) -> Table:
    """The rows as text."""
    result = Table('transform', title=title)
    instead = rows[0].instead_ms is not None
    for name in ('ms', 'share', *(('instead, ms', 'ratio') if instead else ())):
        result.add_column(name, justify='right')
    total = rows[-1].ms
    for row in rows:
        cells = [row.name, f'{row.ms:.2f}', f'{row.ms / total:.0%}']
        if instead:
            cells += [f'{row.instead_ms:.2f}', f'{row.instead_ms / row.ms:.2f}' if row.ms else '']
        result.add_row(*cells)
    return result


def pair(text: str) -> tuple[str, str]:
    """``OLD=NEW`` of the command line."""
    old, sign, new = text.partition('=')
    if not (old and sign and new):
        raise argparse.ArgumentTypeError(f'{text!r} is not OLD=NEW, two types of transforms')
    return old, new


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', type=Path)
    parser.add_argument('--split', choices=SPLITS, default='train')
    parser.add_argument('--samples', type=int, default=16, help='spread over the data set')
    parser.add_argument('--instead', type=pair, metavar='OLD=NEW', help='types of transforms')
    parser.add_argument('--options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args(arguments)
    if args.samples < 1:
        parser.error(f'--samples {args.samples}: give 1 or more')
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure and report."""
    args = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        rows, number, different = measure(args)
    except (ValueError, FileNotFoundError) as error:
        Console(stderr=True, highlight=False).print(f'benchmark_data: {error}', markup=False)
        return 2
    machine = describe('cpu', torch.get_num_threads())
    console.print(table(rows, f'{args.config.stem}, {args.split}, {number} samples; {machine}'))
    if args.instead:
        console.print(f'inputs that differ: {different} of {number}')
    if args.json:
        record = {
            'machine': machine,
            'config': str(args.config),
            'split': args.split,
            'samples': number,
            'different': different if args.instead else None,
            'rows': [asdict(row) for row in rows],
        }
        write_text(args.json, json.dumps(record, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
