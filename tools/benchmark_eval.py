# SPDX-License-Identifier: Apache-2.0
"""Evaluation here against the toolboxes' own, on the same samples, side by side in one run.

``tools/benchmark_eval.py --clips DIR --ade DIR``: a Kinetics-style test (4 views, 1 crop), a
Something-Something-style test (1 view, 3 crops of extracted frames) and an ADE20K multi-scale test,
each through the toolbox's TestLoop, transforms and metric ("stock") and through
``ResumableTestLoop`` with ours, with one small network. Repetitions alternate; medians are
reported with the ratio, the share of the network, and whether every prediction (mean logits of a
video, label map of a photo) and every metric is equal to the last digit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from uniformer_mm.evaluation.protocol import Choices, build_config, network_of

ROOT = Path(__file__).resolve().parents[1]
SMALL = dict(depths=(1, 1, 2, 1), dims=(16, 32, 32, 64), head_dim=16)
VIDEOS = ('.mp4', '.avi')


def small_network(config: Config) -> None:
    """Put a network into the config that costs little: the rest is what is measured."""
    network = network_of(config)
    network.backbone.arch = SMALL
    network.backbone.pop('with_cp', None)
    dims = list(SMALL['dims'])
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


CASES: dict[str, tuple[str, str, Callable, str, dict]] = {
    'Kinetics-400, 4 x 1': (
        'video', 'video/uniformer_s_16x4_k400.py', kinetics_like, 'mmaction', {},
    ),
    'Something-Something V2, 1 x 3': (
        'video', 'video/uniformer_s_16_ssv2.py', something_like, 'mmaction', {},
    ),
    'ADE20K, UperNet, 6 scales + flip': (
        'seg', 'seg/upernet_uniformer_s.py', ade_like, 'mmseg', {'multi_scale': True},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One test.

    Attributes:
        seconds: Of the loop, per sample.
        network: Of them in the backbone.
        metrics: What it reported.
        predictions: Of each sample: mean logits of all views, or the label map.
    """

    seconds: float
    network: float
    metrics: dict[str, float]
    predictions: list[torch.Tensor]


def watch(model: torch.nn.Module) -> list[torch.Tensor]:
    """A list that fills with what the model predicts."""
    found: list[torch.Tensor] = []
    step = model.test_step

    def watched(data: dict) -> list:
        samples = step(data)
        for sample in samples:
            if 'pred_sem_seg' in sample:
                found.append(sample.pred_sem_seg.data.squeeze().to(torch.uint8))
            else:
                scores = sample.pred_score
                found.append(scores if scores.ndim == 1 else scores.mean(0))
        return samples

    model.test_step = watched
    return found


def run(name: str, stock: bool, root: Path, work: Path, workers: int) -> Run:
    """Test once."""
    task, config_name, _, _, options = CASES[name]
    work.mkdir(parents=True)
    choices = Choices(data=root, stock=stock, workers=workers, **options)
    config = build_config(ROOT / 'configs' / config_name, task, choices, work)
    small_network(config)
    config.log_level = 'ERROR'
    if stock:
        config.test_cfg = dict(type='TestLoop')
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(config)
        predictions = watch(runner.model)
        torch.manual_seed(0)
        for parameter in runner.model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, 0, 0.05)
        network, inside = getattr(runner.model, 'module', runner.model), [0.0]
        inner = network.extract_feat

        def timed(*args, **kwargs):
            started = time.perf_counter()
            result = inner(*args, **kwargs)
            inside[0] += time.perf_counter() - started
            return result

        network.extract_feat = timed
        samples = len(runner.test_loop.dataloader.dataset)
        started = time.perf_counter()
        metrics = runner.test()
        seconds = time.perf_counter() - started
    return Run(seconds / samples, inside[0] / samples, metrics, predictions)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=Path, required=True, help='folder of video files')
    parser.add_argument('--ade', type=Path, required=True, help='ADEChallengeData2016')
    parser.add_argument('--repeat', type=int, default=2, help='times that each sample is listed')
    parser.add_argument('--rounds', type=int, default=3, help='alternating repetitions')
    parser.add_argument('--workers', type=int, default=0, help='processes that load data')
    parser.add_argument('--case', choices=list(CASES), action='append')
    parser.add_argument('--json', type=Path, help='write the measurements there')
    args = parser.parse_args()
    console = Console(highlight=False, width=140)
    MMLogger.get_current_instance().setLevel('ERROR')
    for package in dict.fromkeys(CASES[name][3] for name in args.case or CASES):
        import_module(f'{package}.utils').register_all_modules(False)
    table = Table('test', 'stock, s', 'ours, s', 'stock / ours', 'network, s', 'equal')
    results, different = {}, False
    for name in args.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / 'data'
            root.mkdir()
            source = args.ade if CASES[name][0] == 'seg' else args.clips
            CASES[name][2](source, root, args.repeat)
            seconds: dict[bool, list[float]] = {True: [], False: []}
            networks, found = [], {}
            same = total = 0
            for turn in range(args.rounds):
                for stock in (True, False):
                    work = Path(folder) / f'work-{turn}-{stock}'
                    found[stock] = run(name, stock, root, work, args.workers)
                    seconds[stock].append(found[stock].seconds)
                    networks.append(found[stock].network)
                pairs = list(zip(found[True].predictions, found[False].predictions, strict=True))
                same += sum(torch.equal(*pair) for pair in pairs)
                total += len(pairs)
        theirs, ours = found[True].metrics, found[False].metrics
        shared = sorted(set(theirs) & set(ours))
        equal = bool(shared) and all(theirs[key] == ours[key] for key in shared) and same == total
        different |= not equal
        before, after = (statistics.median(seconds[stock]) for stock in (True, False))
        words = f'{"yes" if equal else "NO"}: {same} of {total} predictions, '
        words += ', '.join(f'{key} {ours[key]:.4g}' for key in shared)
        table.add_row(
            name, f'{before:.3f}', f'{after:.3f}', f'{before / after:.2f}',
            f'{statistics.median(networks):.3f}', words,
        )  # fmt: skip
        results[name] = {
            'stock': seconds[True], 'ours': seconds[False], 'network': networks,
            'stock_metrics': theirs, 'our_metrics': ours, 'equal': equal,
            'same_predictions': same, 'predictions': total,
        }  # fmt: skip
        console.print(f'{name}: stock {before:.3f} s, ours {after:.3f} s', markup=False)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1, default=float))
    console.print(table)
    versions = ', '.join(f'{p} {metadata.version(p)}' for p in ('torch', 'mmengine', 'mmcv'))
    console.print(
        f'Seconds per sample, median of {args.rounds} alternating rounds, load average '
        f'{os.getloadavg()[0]:.1f}; {platform.machine()}, {os.cpu_count()} cores, '
        f'{torch.get_num_threads()} threads, {args.workers} workers; {versions}; '
        f'{time.strftime("%Y-%m-%d")}.'
    )
    return int(different)


if __name__ == '__main__':
    sys.exit(main())
