# SPDX-License-Identifier: Apache-2.0
"""Evaluation here against the toolboxes' own, on the same samples, side by side in one run.

``tools/benchmark/evaluation.py --clips DIR --ade DIR``: a Kinetics-style test (4 views, 1 crop), a
Something-Something-style test (1 view, 3 crops of extracted frames) and an ADE20K multi-scale test,
each in three ways:

* toolbox: the toolbox's transforms, loop and metric, as its own configs test (videos only: its
  frames and resizing are not the papers', so its numbers differ and only its time is compared);
* stock: the papers' frames and crops in the toolbox's loop and metric;
* ours: ``ResumableTestLoop`` with our transforms, test-time augmentation and metric.

Repetitions alternate; medians are reported with where the time goes, and whether every prediction
(mean logits of a video, label map of a photo) and every metric of stock and ours is equal to the
last digit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from uniformer_mm.evaluation.running.protocol import Choices, build_config, network_of
from uniformer_mm.files import write_text

ROOT = Path(__file__).resolve().parents[2]
TINY = dict(depths=(1, 1, 2, 1), dims=(16, 32, 32, 64), head_dim=16)
WAYS = ('toolbox', 'stock', 'ours')
VIDEOS = ('.mp4', '.avi')


def tiny_network(config: Config) -> None:
    """Put a network into the config that costs little: the rest is what is measured."""
    network = network_of(config)
    network.backbone.arch = TINY
    network.backbone.pop('with_cp', None)
    dims = list(TINY['dims'])
    for name in ('decode_head', 'auxiliary_head', 'cls_head'):
        head = network.get(name)
        if not head:
            continue
        whole = isinstance(head.in_channels, list)
        head.in_channels = dims if whole else dims[2 if name == 'auxiliary_head' else 3]
        if 'norm_cfg' in head:
            head.norm_cfg, head.channels = dict(type='BN'), 32


def kinetics_like(clips: Path, root: Path, repeat: int) -> None:
    """A list of the clips, each several times under another name."""
    folder = root / 'kinetics400/videos_val'
    folder.mkdir(parents=True)
    lines = []
    for number in range(repeat):
        for label, path in enumerate(sorted(p for p in clips.iterdir() if p.suffix in VIDEOS)):
            name = f'{number}_{path.name}'
            (folder / name).symlink_to(path.resolve())
            lines.append(f'{name} {label}')
    (root / 'kinetics400/kinetics400_val_list_videos.txt').write_text('\n'.join(lines) + '\n')


def something_like(clips: Path, root: Path, repeat: int) -> None:
    """The clips' first frames as JPEG files in Something-Something's layout."""
    lines = []
    for label, path in enumerate(sorted(p for p in clips.iterdir() if p.suffix in VIDEOS)):
        folder = root / 'sthv2/rawframes' / path.stem
        folder.mkdir(parents=True)
        capture, number = cv2.VideoCapture(str(path)), 0
        while number < 60:
            ok, frame = capture.read()
            if not ok:
                break
            number += 1
            height = 240
            size = (round(frame.shape[1] * height / frame.shape[0]), height)
            cv2.imwrite(str(folder / f'img_{number:05}.jpg'), cv2.resize(frame, size))
        lines += [f'{path.stem} {number} {label}'] * repeat
    (root / 'sthv2/sthv2_val_list_rawframes.txt').write_text('\n'.join(lines) + '\n')


def ade_like(ade: Path, root: Path, repeat: int) -> None:
    """The validation photos, each several times under another name."""
    target = root / 'ade/ADEChallengeData2016'
    for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
        (target / kind / 'validation').mkdir(parents=True)
        for number in range(repeat):
            for path in sorted((ade / kind / 'validation').glob(f'*{suffix}')):
                link = target / kind / 'validation' / f'{number}_{path.name}'
                link.symlink_to(path.resolve())


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        task: Key of the catalogue's toolboxes.
        package: Its toolbox.
        config: Recipe, below ``configs``.
        lay_out: Makes the data root.
        options: Choices of the protocol.
        sampling: The toolbox's own way from a file to a batch, formatting aside; empty if the
            recipe's is that.
    """

    task: str
    package: str
    config: str
    lay_out: Callable[[Path, Path, int], None]
    options: dict = field(default_factory=dict)
    sampling: tuple[dict, ...] = ()

    @property
    def ways(self) -> tuple[str, ...]:
        """Which of :data:`WAYS` differ."""
        return WAYS if self.sampling else WAYS[1:]


CASES = {
    'Kinetics-400, 4 x 1': Case(
        'video',
        'mmaction',
        'video/uniformer_s_16x4_k400.py',
        kinetics_like,
        sampling=(
            dict(type='DecordInit'),
            dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=4, test_mode=True),
            dict(type='DecordDecode'),
            dict(type='Resize', scale=(-1, 224)),
            dict(type='CenterCrop', crop_size=224),
        ),
    ),
    'Something-Something V2, 1 x 3': Case(
        'video',
        'mmaction',
        'video/uniformer_s_16_ssv2.py',
        something_like,
        sampling=(
            dict(type='UniformSample', clip_len=16, num_clips=1, test_mode=True),
            dict(type='RawFrameDecode'),
            dict(type='Resize', scale=(-1, 224)),
            dict(type='ThreeCrop', crop_size=224),
        ),
    ),
    'ADE20K, UperNet, 6 scales + flip': Case(
        'seg', 'mmseg', 'seg/upernet_uniformer_s.py', ade_like, {'multi_scale': True}
    ),
}


@dataclass(frozen=True)
class Run:
    """One test.

    Attributes:
        seconds: Of the loop, for each sample.
        parts: Of them waiting for data, and in the network with its heads.
        metrics: What it reported.
        predictions: Of each sample: mean logits of all views, or the label map.
    """

    seconds: float
    parts: dict[str, float]
    metrics: dict[str, float]
    predictions: list[torch.Tensor]


class TimedLoader:
    """A data loader that counts how long it is waited for."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader, self.seconds = loader, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        started = time.perf_counter()
        for batch in self.loader:
            self.seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


class Watch:
    """Keeps what a model predicts and how long its network takes."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds, self.predictions = 0.0, []
        self.step, model.test_step = model.test_step, self.test_step
        network = getattr(model, 'module', model)
        name = 'encode_decode' if hasattr(network, 'encode_decode') else 'forward'
        self.network = getattr(network, name)
        setattr(network, name, self.timed_network)

    def timed_network(self, *args, **kwargs) -> Any:
        """The network with its heads."""
        started = time.perf_counter()
        result = self.network(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return result

    def test_step(self, data: dict) -> list:
        """The model's step."""
        samples = self.step(data)
        for sample in samples:
            if 'pred_sem_seg' in sample:
                self.predictions.append(sample.pred_sem_seg.data.squeeze().to(torch.uint8))
            else:
                scores = sample.pred_score
                self.predictions.append(scores if scores.ndim == 1 else scores.mean(0))
        return samples


def run(case: Case, way: str, root: Path, work: Path, args: argparse.Namespace) -> Run:
    """Test once."""
    work.mkdir(parents=True)
    choices = Choices(data=root, stock=way != 'ours', workers=args.workers, **case.options)
    config = build_config(ROOT / 'configs' / case.config, case.task, choices, work)
    if args.arch == 'tiny':
        tiny_network(config)
    config.log_level, config.experiment_name = 'ERROR', work.name
    config.randomness = dict(seed=0)
    if way != 'ours':
        config.test_cfg = dict(type='TestLoop')
    if way == 'toolbox':
        dataset = config.test_dataloader.dataset
        dataset.pipeline = [*case.sampling, *dataset.pipeline[-2:]]
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(config)
        torch.manual_seed(0)
        for parameter in runner.model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, 0, 0.05)
        watch = Watch(runner.model)
        loader = runner.test_loop.dataloader = TimedLoader(runner.test_loop.dataloader)
        samples = len(loader.dataset)
        started = time.perf_counter()
        metrics = runner.test()
        seconds = time.perf_counter() - started
    parts = {'data': loader.seconds / samples, 'network': watch.seconds / samples}
    return Run(seconds / samples, parts, metrics, watch.predictions)


def compare(theirs: Run, ours: Run) -> tuple[bool, str]:
    """Whether two tests gave the same, and in words what was compared."""
    pairs = list(zip(theirs.predictions, ours.predictions, strict=True))
    same = sum(torch.equal(*pair) for pair in pairs)
    shared = sorted(set(theirs.metrics) & set(ours.metrics))
    equal = bool(shared) and all(theirs.metrics[key] == ours.metrics[key] for key in shared)
    kinds = len({bytes(prediction.numpy()) for prediction in ours.predictions})
    words = f'{same} of {len(pairs)} predictions ({kinds} different ones)'
    return equal and same == len(pairs), f'{words}, {len(shared)} metrics'


def measure(name: str, args: argparse.Namespace) -> tuple[dict[str, list[Run]], bool, str]:
    """All rounds of a case in turn, and what the comparison of the last ones says."""
    case = CASES[name]
    found: dict[str, list[Run]] = {way: [] for way in case.ways}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'data'
        root.mkdir()
        case.lay_out(args.ade if case.task == 'seg' else args.clips, root, args.repeat)
        for turn in range(args.rounds):
            for way in case.ways:
                work = Path(folder) / f'{case.task}-{turn}-{way}'
                found[way].append(run(case, way, root, work, args))
    return found, *compare(found['stock'][-1], found['ours'][-1])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=Path, required=True, help='folder of video files')
    parser.add_argument('--ade', type=Path, required=True, help='ADEChallengeData2016')
    parser.add_argument('--arch', choices=('tiny', 'recipe'), default='tiny', help='the network')
    parser.add_argument('--repeat', type=int, default=2, help='times that each sample is listed')
    parser.add_argument('--rounds', type=int, default=3, help='alternating repetitions')
    parser.add_argument('--workers', type=int, default=0, help='processes that load data')
    parser.add_argument('--case', choices=list(CASES), action='append')
    parser.add_argument('--json', type=Path, help='write the measurements there')
    args = parser.parse_args()
    console = Console(highlight=False, width=150)
    MMLogger.get_current_instance().setLevel('ERROR')
    names = args.case or list(CASES)
    for package in dict.fromkeys(CASES[name].package for name in names):
        import_module(f'{package}.utils').register_all_modules(False)
    table = Table('test', 'way', 's per sample (rounds)', 'data', 'network', 'rest', 'stock / this')
    results, remarks, different = {}, [], False
    for name in names:
        found, equal, words = measure(name, args)
        different |= not equal
        remarks.append(f'{name}, stock and ours: {"equal" if equal else "NOT EQUAL"}, {words}')
        medians = {way: median(run.seconds for run in runs) for way, runs in found.items()}
        for way, runs in found.items():
            spent = {part: median(run.parts[part] for run in runs) for part in runs[0].parts}
            times = [run.seconds for run in runs]
            table.add_row(
                name,
                way,
                f'{medians[way]:.3f} ({min(times):.3f} to {max(times):.3f})',
                *(f'{seconds:.3f}' for seconds in spent.values()),
                f'{medians[way] - sum(spent.values()):.3f}',
                f'{medians["stock"] / medians[way]:.2f}',
            )
            results.setdefault(name, {})[way] = {'seconds': times, **spent}
        results[name] |= {'equal': equal, 'compared': words}
        if args.json:
            write_text(args.json, json.dumps(results, indent=1) + '\n')
    console.print(table)
    console.print('\n'.join(remarks), markup=False)
    versions = ', '.join(f'{p} {metadata.version(p)}' for p in ('torch', 'mmengine', 'mmcv'))
    console.print(
        f'Median of {args.rounds} alternating rounds, {args.arch} network; {platform.machine()}, '
        f'{os.cpu_count()} cores, {torch.get_num_threads()} threads, {args.workers} workers, load '
        f'{os.getloadavg()[0]:.1f}; {versions}; {time.strftime("%Y-%m-%d")}.'
    )
    return int(different)


if __name__ == '__main__':
    sys.exit(main())
