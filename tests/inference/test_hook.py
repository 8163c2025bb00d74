# SPDX-License-Identifier: Apache-2.0
"""Clips that are drawn while a video model is tested."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from uniformer_mm.inference.hook import ClipVisualizationHook

from ..toolboxes.mim import run_mim


class RGBToBGR:
    """Stands in for the transform of that name."""


def runner_for(folder, *transforms):
    """Six clips, and what a runner tells its hooks of them."""
    dataset = SimpleNamespace(
        metainfo={'classes': ['one', 'two']},
        pipeline=SimpleNamespace(transforms=list(transforms)),
    )
    loader = SimpleNamespace(dataset=dataset)
    images = {}
    visualizer = SimpleNamespace(add_image=lambda name, image, step: images.update({name: image}))
    runner = SimpleNamespace(
        work_dir=str(folder), timestamp='now', test_dataloader=loader, val_dataloader=loader,
        visualizer=visualizer, iter=7, images=images,
    )  # fmt: skip
    return runner


def batch(count: int = 2) -> tuple[dict, list]:
    # Two views of red clips.
    clips = torch.zeros(count, 2, 3, 8, 300, 300, dtype=torch.uint8)
    clips[:, :, 0] = 200
    scores = torch.tensor([2.0, 0.0])
    outputs = [SimpleNamespace(pred_score=scores, gt_label=torch.tensor([1])) for _ in range(count)]
    return {'inputs': list(clips)}, outputs


def test_every_third_clip_is_drawn_in_its_colours(tmp_path) -> None:
    hook = ClipVisualizationHook(enable=True, interval=3, out_dir='drawn')
    runner = runner_for(tmp_path)
    for index in range(3):
        hook.after_test_iter(runner, index, *batch())
    files = sorted((tmp_path / 'now' / 'drawn').iterdir())
    assert [file.name for file in files] == ['clip_000000.png', 'clip_000003.png']
    image = cv2.imread(str(files[0]))[..., ::-1]
    # Four frames beside each other, then the bars, the true class in green.
    assert image.shape[1] == 4 * 300 + 3 * 4
    assert tuple(image[150, 150]) == (200, 0, 0)
    green = (image[300:] == (40, 150, 70)).all(-1).sum()
    grey = (image[300:] == 150).all(-1).sum()
    # Logits 2 and 0 are probabilities 0.881 and 0.119.
    assert green / grey == pytest.approx(0.119 / 0.881, rel=0.1)


def test_frames_that_were_turned_to_bgr_are_turned_back(tmp_path) -> None:
    hook = ClipVisualizationHook(enable=True, interval=1)
    runner = runner_for(tmp_path, RGBToBGR())
    hook.after_val_iter(runner, 0, *batch(1))
    (image,) = runner.images.values()
    assert tuple(image[150, 150]) == (0, 0, 200)


def test_it_draws_nothing_unless_it_is_asked_to(tmp_path) -> None:
    runner = runner_for(tmp_path)
    ClipVisualizationHook(interval=1).after_test_iter(runner, 0, *batch())
    assert not runner.images and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='interval=0 must be 1 or more'):
        ClipVisualizationHook(interval=0)


@pytest.mark.slow
def test_mim_test_show_dir(untrained, world) -> None:
    model = untrained('video')
    run_mim(
        'test', 'mmaction2', model.config, world, '--checkpoint', str(model.weights),
        '--show-dir', 'drawn', '--interval', '3', **{'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False},
    )  # fmt: skip
    files = sorted((world / 'work').glob('*/drawn/*.png'))
    assert len(files) == -(-len(model.samples) // 3)
    assert all(np.asarray(cv2.imread(str(file))).std() > 20 for file in files)
