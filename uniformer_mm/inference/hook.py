# SPDX-License-Identifier: Apache-2.0
"""Drawn clips while a video model is validated or tested (``mim test ... --show-dir``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS, register
from .drawing import draw_bars, side_by_side

_FRAMES = 4


@register(HOOKS)
class ClipVisualizationHook(Hook):
    """Frames of a clip above the bars of its most probable classes, the true one marked.

    mmaction2's ``VisualizationHook`` fails on clips of several views, which all of ours are, and
    hands its visualizer an argument that this does not have. The arguments are the ones that
    mmaction2's ``tools/test.py`` sets.

    Args:
        enable: Whether anything is drawn.
        interval: Every how many clips one is drawn.
        show: Open a window for each.
        out_dir: Folder of the images, below the work folder; None: the visualizer's backends keep
            them.
        wait_time: Seconds that a window stays; 0: until a key is pressed.
    """

    def __init__(
        self,
        enable: bool = False,
        interval: int = 5000,
        show: bool = False,
        out_dir: str | None = None,
        wait_time: float = 0.0,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval} must be 1 or more.')
        self.enable = enable
        self.interval = interval
        self.show = show
        self.out_dir = out_dir
        self.wait_time = wait_time

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draw samples of a validation's batch."""
        self._draw(
            runner, runner.val_dataloader.dataset, batch_idx, data_batch, outputs, runner.iter
        )

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draw samples of a test's batch."""
        self._draw(runner, runner.test_dataloader.dataset, batch_idx, data_batch, outputs, 0)

    def _draw(
        self,
        runner: Runner,
        dataset: Any,
        batch_idx: int,
        data_batch: Any,
        outputs: Sequence,
        step: int,
    ) -> None:
        if not self.enable:
            return
        for place, (clip, sample) in enumerate(zip(data_batch['inputs'], outputs, strict=True)):
            index = (batch_idx * len(outputs) + place) * get_world_size() + get_rank()
            if index % self.interval:
                continue
            # Views are clips times crops; the middle one.
            frames = clip[len(clip) // 2].permute(1, 2, 3, 0).numpy().astype(np.uint8)
            if any(type(one).__name__ == 'RGBToBGR' for one in dataset.pipeline.transforms):
                frames = frames[..., ::-1]
            chosen = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
            scores = sample.pred_score.float().cpu()
            if not _are_probabilities(scores):
                scores = scores.softmax(-1)
            classes = dataset.metainfo.get('classes') or [f'class {i}' for i in range(len(scores))]
            image = draw_bars(
                side_by_side([frames[i] for i in chosen], gap=4),
                scores.numpy(),
                classes,
                truth=int(sample.gt_label),
            )
            self._keep(runner, f'clip_{index:06d}', image, step)

    def _keep(self, runner: Runner, name: str, image: np.ndarray, step: int) -> None:
        if self.out_dir is None:
            runner.visualizer.add_image(name, image, step)
        else:
            from mmcv import imwrite

            folder = Path(runner.work_dir, runner.timestamp, self.out_dir)
            imwrite(image[..., ::-1], str(folder / f'{name}.png'))
        if self.show:
            runner.visualizer.show(image, win_name=name, wait_time=self.wait_time)


def _are_probabilities(scores: Any) -> bool:
    return bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3
