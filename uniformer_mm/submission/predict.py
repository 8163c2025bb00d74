# SPDX-License-Identifier: Apache-2.0
"""Predictions on a benchmark's test set, by running a row's test with its toolbox.

The row's config says how to test; what the test set changes stands once in
``configs/_base_/submission``, for this command and for the configs in ``configs/submission``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from ..evaluation.running.launch import Advance, run_test
from ..evaluation.running.loop import folder_of
from ..evaluation.running.protocol import (
    Choices,
    annotation_files,
    build_config,
    classes_of,
    config_digest,
    data_root,
)
from ..evaluation.running.reproduce import Test, tests_of
from ..evaluation.running.worker import CONFIG, SPEC
from ..recipes import config_root
from ..weights.resolve import resolve_file
from .video.ssv2 import CLASSES as SSV2_CLASSES

DEFAULT_WORK_DIR = Path('work_dirs/submit')
_PREDICTIONS = 'predictions'
# Benchmark: (task of the toolboxes, what the test leaves behind).
_RUNS = {
    'coco-det': ('det', f'{_PREDICTIONS}.bbox.json'),
    'coco-segm': ('det', f'{_PREDICTIONS}.segm.json'),
    'coco-keypoints': ('pose', f'{_PREDICTIONS}.keypoints.json'),
    'ade20k': ('seg', 'label_maps'),
    'kinetics': ('video', 'scores.pkl'),
    'ssv2': ('video', 'scores.pkl'),
}
_OVERLAYS = {
    'coco-det': 'coco_test_dev',
    'coco-segm': 'coco_test_dev',
    'coco-keypoints': 'coco_keypoints_test_dev',
    'ade20k': 'ade20k_test',
    'ssv2': 'ssv2_test',
}
_CLASSES = {'kinetics': (400, 600), 'ssv2': (SSV2_CLASSES,)}
_NAMES = dict(type='PackActionInputs', meta_keys=('img_shape', 'filename', 'frame_dir'))


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        task: Benchmark, as on the command line.
        config: Row id or path of a config.
        ids: The official list; for COCO it is what is tested, for ADE20K if it is a folder.
        data: Root of the data sets.
        weights: Checkpoint; None takes the row's own.
        boxes: Person detections of the test set (keypoints).
        tested_list: List of videos to test, in mmaction2's form.
        gpus: GPUs, 0 is the CPU; None takes one if there is one.
        work_dir: Where the test and its predictions lie.
        overrides: Other settings, as ``--cfg-options`` of the toolboxes.
    """

    task: str
    config: str
    ids: Path
    data: Path
    weights: str | None = None
    boxes: Path | None = None
    tested_list: Path | None = None
    gpus: int | None = None
    work_dir: Path = DEFAULT_WORK_DIR
    overrides: dict[str, Any] | None = None


@dataclass(frozen=True)
class Predictions:
    """What a test run has left.

    Attributes:
        path: File or folder for the writers.
        class_order: Order of the scores' classes; None where there is one order only.
        notes: What the user should know.
    """

    path: Path
    class_order: str | None
    notes: list[str]


def run_submission_test(request: Request, advance: Advance) -> Predictions:
    """Test on a benchmark's test set, or finish what an interrupted test has left.

    Args:
        request: See :class:`Request`.
        advance: Shows the progress.

    Raises:
        ValueError: A row of another task, data or weights that are not there.
        TestFailedError: A process died. What was finished is kept.
    """
    test = tests_of(request.config)[0]
    weights = request.weights or (test.recipe.weights if test.recipe else '')
    if not weights:
        raise ValueError(f'{test.name}: has no published weights; name a checkpoint: --weights.')
    gpus = _gpus(request.gpus)
    # One test gives boxes and masks.
    folder = folder_of(request.work_dir / f'{_overlay_name(request, test)}-{_plain(test.name)}')
    config = submission_config(request, test, folder)
    order = None
    if request.task == 'kinetics':
        order = f'kinetics{classes_of(config)}_alphabetical'
    config.test_cfg.identity = {
        'weights': resolve_file(weights).digests.get('sha256', ''),
        'configuration': config_digest(config, folder, request.data.absolute()),
        'class order': order or '',
    }
    row = test.recipe.id if test.recipe else ''
    spec = {'row': row, 'task': test.task, 'weights': weights, 'class_order': order}
    try:
        config.dump(folder / CONFIG)
        (folder / SPEC).write_text(json.dumps(spec), encoding='utf-8')
    except OSError as error:
        raise ValueError(f'{folder} cannot be written ({error.strerror}).') from error
    result = run_test(folder, gpus, advance)
    notes = [f'predictions lie in {folder}']
    if result['weights']['class_order']:
        notes.append(f'order of the weights: {result["weights"]["class_order"]}')
    if result['data']['missing']:
        notes.append(f'{result["data"]["missing"]:,} of the listed files were not there')
    return Predictions(folder / _RUNS[request.task][1], order, notes)


def submission_config(request: Request, test: Test, folder: Path) -> Config:
    """The configuration of the test run.

    Raises:
        ValueError: A row of another task or number of classes, or lists that are not there.
    """
    task = _RUNS[request.task][0]
    if test.task != task:
        raise ValueError(f'{test.name} is a {test.task} row; {request.task} needs a {task} row.')
    path = config_root() / '_base_' / 'submission' / f'{_overlay_name(request, test)}.py'
    with data_root(request.data.absolute()):
        overlay = Config.fromfile(path)
    changes = ConfigDict(overlay.submission_set)
    if request.task.startswith('coco'):
        changes.ann_file = str(request.ids.absolute())
    elif request.task == 'ade20k' and request.ids.is_dir():
        changes.data_root, changes.data_prefix.img_path = str(request.ids.absolute()), ''
    elif request.tested_list is not None:
        changes.ann_file = str(request.tested_list.absolute())
    if request.boxes is not None:
        changes.bbox_file = str(request.boxes.absolute())
    boxes = changes.get('bbox_file')
    if boxes and not Path(boxes).is_file():
        raise ValueError(
            f'{boxes} is not there; name the person detections of the test set: --boxes FILE.'
        )
    choices = Choices(data=request.data.absolute(), boxes=boxes, stock=True)
    config = build_config(test.config, task, choices, folder)
    wanted = _CLASSES.get(request.task)
    if wanted and classes_of(config) not in wanted:
        raise ValueError(
            f'{test.name} has {classes_of(config)} classes; {request.task} needs one with '
            f'{" or ".join(map(str, wanted))}.'
        )
    pipeline = config.test_dataloader.dataset.pipeline
    changes.pipeline = [step for step in pipeline if step['type'] != 'LoadAnnotations']
    if task == 'video':
        changes.pipeline[-1] = ConfigDict(_NAMES)
    evaluator = ConfigDict(overlay.submission_evaluator)
    if task in ('det', 'pose'):
        evaluator.update(ann_file=changes.ann_file, outfile_prefix=str(folder / _PREDICTIONS))
    else:
        output = 'output_dir' if task == 'seg' else 'out_file_path'
        evaluator[output] = str(folder / _RUNS[request.task][1])
    config.merge_from_dict(dict(test_dataloader=dict(dataset=changes), test_evaluator=evaluator))
    config.merge_from_dict(dict(request.overrides or {}))
    if not config.test_dataloader.num_workers:
        config.test_dataloader.persistent_workers = False
    lists = annotation_files(config)
    for path in lists:
        if not path.is_file():
            raise ValueError(f'{path} is not there, which lists the test set; check --data.')
    config.test_cfg.files = tuple(str(path) for path in lists if path.suffix == '.json')
    # Test lists have no labels, or made-up ones.
    config.test_cfg.num_classes = None
    return config


def _overlay_name(request: Request, test: Test) -> str:
    if request.task == 'kinetics':
        classes = classes_of(Config.fromfile(test.config))
        return f'kinetics{600 if classes == 600 else 400}_test'
    return _OVERLAYS[request.task]


def _plain(name: str) -> str:
    return name.replace('/', '-')


def _gpus(asked: int | None) -> int:
    there = torch.cuda.device_count()
    if asked is not None and not 0 <= asked <= there:
        raise ValueError(f'gpus={asked}, but this machine has {there}; 0 tests on the CPU.')
    return min(1, there) if asked is None else asked
