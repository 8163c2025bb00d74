# SPDX-License-Identifier: Apache-2.0
"""Draw predictions of a trained quickstart beside the ground truth, with the toolbox's own means.

Usage: ``demo_pictures.py TASK CONFIG CHECKPOINT OUTPUT.png``
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.runner import Runner

mpl.use('Agg')
from matplotlib import pyplot as plt

SAMPLES = 6


def build(config_path: str, checkpoint: str) -> tuple:
    """The trained model in evaluation mode, and the dataset and config of its test split."""
    config = Config.fromfile(config_path)
    config.work_dir = str(Path(checkpoint).parent)
    config.load_from = checkpoint
    init_default_scope(config.default_scope)
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    runner.model.eval()
    dataset = DATASETS.build(config.test_dataloader.dataset)
    return runner.model, dataset, config


def spread(count: int) -> list[int]:
    """``SAMPLES`` indices over a split, so that not only one class is shown."""
    return np.linspace(0, count - 1, min(SAMPLES, count)).astype(int).tolist()


@torch.no_grad()
def draw_maps(model, dataset, config) -> list[tuple[str, np.ndarray]]:
    """Pictures of detection, segmentation and pose: ground truth left, prediction right."""
    visualizer = VISUALIZERS.build(config.visualizer | {'save_dir': None, 'vis_backends': None})
    if hasattr(visualizer, 'set_dataset_meta'):
        visualizer.set_dataset_meta(dataset.metainfo)
    visualizer.dataset_meta = dataset.metainfo
    pictures = []
    for index in spread(len(dataset)):
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        image = cv2.imread(sample.img_path)[..., ::-1]
        visualizer.add_datasample('', np.ascontiguousarray(image), sample)
        pictures.append((Path(sample.img_path).name, visualizer.get_image()))
    return pictures


def middle_frames(path: str, count: int = 4) -> np.ndarray:
    """``count`` frames of a clip side by side."""
    capture = cv2.VideoCapture(path)
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame[..., ::-1])
    chosen = np.linspace(0, len(frames) - 1, count).astype(int)
    return np.concatenate([frames[i] for i in chosen], axis=1)


@torch.no_grad()
def draw_labels(model, dataset, classes: list[str]) -> list[tuple[str, np.ndarray]]:
    """Pictures of images or clips under their true and predicted class."""
    pictures = []
    for index in spread(len(dataset)):
        info = dataset.get_data_info(index)
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        score = sample.pred_score.max().item()
        path = info.get('filename') or info['img_path']
        image = middle_frames(path) if 'filename' in info else cv2.imread(path)[..., ::-1]
        truth, guess = int(sample.gt_label), int(sample.pred_score.argmax())
        mark = 'right' if truth == guess else 'WRONG'
        title = f'true: {classes[truth]}   predicted: {classes[guess]} ({score:.0%}) {mark}'
        pictures.append((title, image))
    return pictures


def save(pictures: list[tuple[str, np.ndarray]], task: str, output: Path) -> None:
    """All pictures on one sheet, written whole or not at all."""
    columns = 1 if task == 'video' else 2
    rows = -(-len(pictures) // columns)
    height, width = pictures[0][1].shape[:2]
    cell = 6.5 if columns == 2 else 11
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * cell, rows * (cell * height / width + 0.4)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis('off')
    for axis, (title, image) in zip(axes.flat, pictures, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=10)
    if task in ('det', 'seg', 'pose'):
        figure.suptitle('ground truth (left) and prediction (right)')
    figure.tight_layout()
    partial = output.with_suffix('.partial.png')
    figure.savefig(partial, dpi=100)
    partial.replace(output)


def main() -> None:
    """Draw the task's sheet."""
    task, config_path, checkpoint, output = sys.argv[1:]
    model, dataset, config = build(config_path, checkpoint)
    if task in ('det', 'seg', 'pose'):
        pictures = draw_maps(model, dataset, config)
    else:
        classes = list(dataset.metainfo.get('classes') or config.class_names)
        pictures = draw_labels(model, dataset, classes)
    save(pictures, task, Path(output))


if __name__ == '__main__':
    main()
