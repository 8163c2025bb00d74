# SPDX-License-Identifier: Apache-2.0
"""Draw what a quickstart predicts beside what is true, on its validation split.

Usage: ``demo_images.py TASK CONFIG CHECKPOINT FOLDER``. It writes ``predictions.png`` into the
folder and, for clips, ``predictions.mp4``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image
from pycocotools.mask import decode, frPyObjects, merge

from uniformer_mm.inference import Detections, LabelMap, Poses, Predictor, Result, load_predictor
from uniformer_mm.inference.clips import ClipWriter, frame_rate, read_frames
from uniformer_mm.inference.drawing import draw_bars, side_by_side, stacked, titled
from uniformer_mm.inference.engines import skeleton_of

SAMPLES = 6
_BOX_SCORE = 0.3
_COLUMNS = {'det': 2, 'seg': 2, 'pose': 2, 'video': 1, 'cls': 3}

Pair = tuple[Result, Result]


def spread(count: int) -> list[int]:
    """``SAMPLES`` indices over a split, so that not only one class is shown."""
    return np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int).tolist()


def build_dataset(config: Config, **changes):
    """The test split, without its transforms."""
    return DATASETS.build({**config.test_dataloader.dataset, 'pipeline': [], **changes})


def det_pairs(predictor: Predictor, config: Config) -> list[Pair]:
    """Annotated and detected objects of some images."""
    dataset, pairs = build_dataset(config), []
    for index in spread(len(dataset)):
        info = dataset.get_data_info(index)
        (found,) = predictor(info['img_path'])
        size = found.image.shape[:2]
        marked = [one for one in info['instances'] if not one['ignore_flag']]
        truth = replace(
            found,
            boxes=np.array([one['bbox'] for one in marked]).reshape(-1, 4),
            scores=np.ones(len(marked)),
            labels=np.array([one['bbox_label'] for one in marked], dtype=int),
            masks=np.array([polygon_mask(one['mask'], size) for one in marked]).reshape(-1, *size),
        )
        pairs.append((truth, found))
    return pairs


def polygon_mask(polygons: list, size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons as a boolean mask."""
    return decode(merge(frPyObjects(polygons, *size))).astype(bool)


def seg_pairs(predictor: Predictor, config: Config) -> list[Pair]:
    """Annotated and predicted label maps of some images."""
    dataset, pairs = build_dataset(config), []
    read = TRANSFORMS.build({'type': 'LoadAnnotations'})
    for index in spread(len(dataset)):
        info = dataset.get_data_info(index)
        (found,) = predictor(info['img_path'])
        truth = replace(found, labels=read(dict(info))['gt_seg_map'].astype(int))
        pairs.append((truth, found))
    return pairs


def pose_pairs(predictor: Predictor, config: Config) -> list[Pair]:
    """Annotated skeletons, and those found in the boxes that the test uses."""
    # With a detector's boxes the data set knows no keypoints.
    annotated, tested = build_dataset(config, bbox_file=None), build_dataset(config)
    people, boxes = by_image(annotated), by_image(tested)
    images, pairs = list(people), []
    for index in spread(len(images)):
        persons = people[images[index]]
        image = cv2.imread(images[index])[..., ::-1]
        name = Path(images[index]).name
        corners, scores = boxes_of(boxes.get(images[index], []))
        found = predictor.predict_boxes(name, image, corners, scores)
        corners, scores = boxes_of(persons)
        truth = Poses(
            name=name,
            image=image,
            keypoints=np.concatenate([one['keypoints'] for one in persons]),
            keypoint_scores=np.concatenate([one['keypoints_visible'] for one in persons]),
            boxes=corners,
            box_scores=scores,
            **skeleton_of(annotated.metainfo),
        )
        pairs.append((truth, found))
    return pairs


def by_image(dataset) -> dict[str, list[dict]]:
    """The persons of each image."""
    found: dict[str, list[dict]] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found.setdefault(info['img_path'], []).append(info)
    return found


def boxes_of(persons: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 4) and scores (N,) of the boxes that are certain enough."""
    boxes = np.concatenate([np.zeros((0, 4)), *(one['bbox'] for one in persons)])
    scores = np.concatenate([np.zeros(0), *(one['bbox_score'] for one in persons)])
    return boxes[scores >= _BOX_SCORE], scores[scores >= _BOX_SCORE]


def classified(predictor: Predictor, config: Config) -> list[Result]:
    """Some images or clips with the probabilities of their classes, the true one marked."""
    dataset, results = build_dataset(config), []
    for index in spread(len(dataset)):
        info = dataset.get_data_info(index)
        (found,) = predictor(info.get('filename') or info['img_path'])
        results.append(replace(found, truth=int(info.get('label', info.get('gt_label')))))
    return results


def pair_sheet(pairs: list[Pair], columns: int) -> np.ndarray:
    """Truth and prediction beside each other, sample by sample."""
    cells = []
    for truth, found in pairs:
        if isinstance(truth, LabelMap):
            left, right = truth.draw(legend=False), found.draw()
        elif isinstance(truth, Detections):
            left, right = truth.draw(with_scores=False), found.draw()
        else:
            left, right = truth.draw(), found.draw()
        cells.append(side_by_side([titled(left, 'truth'), titled(right, 'prediction')], gap=4))
    return grid(cells, columns)


def class_sheet(results: list[Result], columns: int) -> np.ndarray:
    """Images or frames above the bars of their classes."""
    return grid([titled(one.draw(), verdict(one)) for one in results], columns)


def verdict(result: Result) -> str:
    """True and predicted class in words."""
    truth = result.classes[result.truth]
    right = result.truth == result.label
    return f'true: {truth}' + ('' if right else f'   predicted: {result.class_name} (wrong)')


def grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Cells of one size, row by row."""
    height = max(cell.shape[0] for cell in cells)
    width = max(cell.shape[1] for cell in cells)
    padded = [
        np.pad(
            cell,
            ((0, height - cell.shape[0]), (0, width - cell.shape[1]), (0, 0)),
            constant_values=255,
        )
        for cell in cells
    ]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    sheet = stacked([side_by_side(row, gap=24) for row in rows])
    return np.pad(sheet, ((12, 12), (12, 12), (0, 0)), constant_values=255)


def write_clip(results: list[Result], path: Path) -> None:
    """All clips one after another under their classes."""
    with ClipWriter(path, frame_rate(results[0].clip)) as film:
        for one in results:
            for frame in read_frames(one.clip):
                bars = draw_bars(frame, one.probabilities, one.classes, 5, one.truth)
                film.write(titled(bars, verdict(one)))


def draw(task: str, config_path: str, checkpoint: str, folder: Path) -> list[Path]:
    """Draw a task's images; returns the files."""
    config = Config.fromfile(config_path)
    predictor = load_predictor(config, checkpoint, device='cpu')
    columns = _COLUMNS[task]
    if task in ('video', 'cls'):
        results = classified(predictor, config)
        sheet = class_sheet(results, columns)
    else:
        pairs = {'det': det_pairs, 'seg': seg_pairs, 'pose': pose_pairs}[task](predictor, config)
        sheet = pair_sheet(pairs, columns)
    files = [folder / 'predictions.png']
    partial = folder / 'predictions.partial.png'
    Image.fromarray(sheet).save(partial)
    partial.replace(files[0])
    if task == 'video':
        files.append(folder / 'predictions.mp4')
        write_clip(results, files[1])
    return files


def main() -> None:
    """Draw what the command line names."""
    task, config_path, checkpoint, folder = sys.argv[1:]
    for file in draw(task, config_path, checkpoint, Path(folder)):
        print(file)


if __name__ == '__main__':
    main()
