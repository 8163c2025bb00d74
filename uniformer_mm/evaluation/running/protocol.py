# SPDX-License-Identifier: Apache-2.0
"""From a row and the user's choices to the configuration of its official test.

The config of the catalogue is the protocol; this module changes only what the user chose, replaces
metrics and transforms by faster ones with the same results, and leaves out what training needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ...recipes import Recipe, recipes
from ..metrics.views import FUSIONS

DATA_VARIABLE = 'UNIFORMER_DATA'
ATTENTIONS = {'global': 'global', 'h32': 'hybrid32', 'w32': 'window32'}
"""Test-time attention by the names of ``--attention``, and as the zoo writes it."""

_TRAINING_PARTS = (
    'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
    'val_dataloader', 'val_cfg', 'val_evaluator', 'custom_hooks', 'compile', 'model_wrapper_cfg',
)  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """What a user may choose about a test.

    Attributes:
        data: Root of the data sets, as ``UNIFORMER_DATA``.
        limit: Number of files of a random subset.
        seed: Which subset.
        multi_scale: Multi-scale and flip (UperNet).
        boxes: Person boxes of a pose test: ``'gt'``, or a file of a detector.
        fusion: How views become a video's score, see ``metrics.FUSIONS``.
        class_order: How the Kinetics list numbers its classes: ``'alphabetical'`` or
            ``'official'``; None finds out.
        classes: Class ids of ImageNet's folders, where they are not all.
        stock: The toolbox's metric, multi-scale model and stacking of views instead of this
            package's; the config's transforms, also those of uniformer_mm, stay.
        batch_size: Files at once; None as in the config.
        workers: Processes that load data; None as in the config.
        overrides: Other settings, as ``--cfg-options`` of the toolboxes.
    """

    data: Path
    limit: int | None = None
    seed: int = 0
    multi_scale: bool = False
    boxes: str | None = None
    fusion: str = 'logits'
    class_order: str | None = None
    classes: str | None = None
    stock: bool = False
    batch_size: int | None = None
    workers: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def with_attention(recipe: Recipe, name: str) -> Recipe:
    """The recipe that tests the same weights with another attention.

    Raises:
        ValueError: No such recipe.
    """
    for other in recipes():
        same = other.training == recipe.training and other.row.file == recipe.row.file
        if same and recipe.training and other.row.attention == ATTENTIONS[name]:
            return other
    offered = [key for key, value in ATTENTIONS.items() for other in recipes()
               if other.training == recipe.training and other.row.attention == value]  # fmt: skip
    raise ValueError(
        f'{recipe.id} has no published test with attention={name!r}'
        + (f'; its weights were tested with {offered}.' if len(offered) > 1 else '.')
        + ' Segmentation rows of global training (_g) have global, h32 and w32.'
    )


@contextmanager
def data_root(folder: Path) -> Iterator[None]:
    """Let configs that are read inside find their data in ``folder``."""
    before = os.environ.get(DATA_VARIABLE)
    os.environ[DATA_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_VARIABLE]
        else:
            os.environ[DATA_VARIABLE] = before


def published_files(recipe: Recipe) -> int:
    """Images or videos of the list that the recipe's published numbers were measured on."""
    settings = recipe.protocol.settings
    if 'images' in settings:
        return int(settings['images'])
    sizes = dict(size.split(':') for size in settings['videos'].split())
    return int(sizes[recipe.row.dataset])


def build_config(path: Path, task: str, choices: Choices, folder: Path) -> Config:
    """The configuration of a test, complete.

    Args:
        path: Config of a recipe, or a user's own.
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        choices: The user's.
        folder: Where the test writes.

    Raises:
        ValueError: A choice that does not fit the task or the config.
    """
    _check_choices(task, choices)
    with data_root(choices.data):
        config = Config.fromfile(path)
    config.merge_from_dict(dict(choices.overrides))
    if task == 'seg':
        _adapt_segmentation(config, choices)
    elif task == 'video' and not choices.stock:
        _adapt_video(config, choices)
    elif task == 'pose':
        _adapt_pose(config, choices)
    if task in ('det', 'pose'):
        config.test_evaluator.outfile_prefix = str(folder / 'predictions')
    loader = config.test_dataloader
    if choices.batch_size is not None:
        loader.batch_size = choices.batch_size
    if choices.workers is not None:
        loader.num_workers = choices.workers
    if not loader.num_workers:
        loader.persistent_workers = False
    for part in _TRAINING_PARTS:
        config.pop(part, None)
    _drop_initialisation(config.model)
    config.work_dir = str(folder / 'log')
    config.load_from, config.resume, config.launcher = None, False, 'none'
    config.default_hooks = dict(checkpoint=None, param_scheduler=None)
    if config.get('visualizer'):
        config.visualizer.vis_backends = []
    config.test_cfg = dict(
        type='uniformer_mm.ResumableTestLoop',
        folder=str(folder),
        limit=choices.limit,
        seed=choices.seed,
        missing='skip' if task == 'video' else 'refuse',
        files=tuple(str(file) for file in annotation_files(config) if file.suffix == '.json'),
        num_classes=classes_of(config),
    )
    return config


def _check_choices(task: str, choices: Choices) -> None:
    only = {
        'multi_scale': (choices.multi_scale, 'seg'),
        'boxes': (choices.boxes is not None, 'pose'),
        'fusion': (choices.fusion != FUSIONS[0], 'video'),
        'class_order': (choices.class_order is not None, 'video'),
        'classes': (choices.classes is not None, 'cls'),
    }
    for name, (chosen, wanted) in only.items():
        if chosen and task != wanted:
            value = getattr(choices, name)
            raise ValueError(
                f'{name}={value!r} is a choice for {wanted} rows; this one is {task}: leave it out.'
            )


def _adapt_segmentation(config: Config, choices: Choices) -> None:
    if not choices.stock:
        old = config.test_evaluator
        if old.type != 'IoUMetric' or list(old.get('iou_metrics', ['mIoU'])) != ['mIoU']:
            raise ValueError(
                f'test_evaluator={dict(old)} is not the IoUMetric of mIoU; use stock=True.'
            )
        ignore = config.test_dataloader.dataset.get('ignore_index', 255)
        config.test_evaluator = ConfigDict(type='uniformer_mm.ConfusionIoU', ignore_index=ignore)
    if not choices.multi_scale:
        return
    if 'tta_pipeline' not in config:
        raise ValueError(
            'this config has no multi-scale test (tta_pipeline); only UperNet rows were published '
            'with one.'
        )
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    kind = 'SegTTAModel' if choices.stock else 'uniformer_mm.RunningSegTTA'
    config.model = ConfigDict(config.tta_model, type=kind, module=config.model)


def _adapt_video(config: Config, choices: Choices) -> None:
    config.model.cls_head.average_clips = None
    options = config.test_evaluator.get('metric_options', {}).get('top_k_accuracy', {})
    config.test_evaluator = ConfigDict(
        type='uniformer_mm.ViewAccuracy', fusion=choices.fusion, topk=options.get('topk', (1, 5))
    )
    pipeline = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset.pipeline = fuse_view_transforms(pipeline)


def fuse_view_transforms(pipeline: list[dict]) -> list[dict]:
    """The pipeline with resize, crop and layout of clips as one transform, where it has them."""
    wanted = ['uniformer_mm.ClipShortSideResize', 'uniformer_mm.ClipUniformCrop', 'FormatShape']
    kinds = [step['type'] for step in pipeline]
    for start in range(len(kinds) - 2):
        resize, crop, layout = pipeline[start : start + 3]
        if kinds[start : start + 3] == wanted and layout['input_format'] == 'NCTHW':
            fused = dict(
                type='uniformer_mm.StackViews',
                short_side=resize['short_side'],
                size=crop['size'],
                num_crops=crop.get('num_crops', 1),
            )
            return [*pipeline[:start], ConfigDict(fused), *pipeline[start + 3 :]]
    return pipeline


def _adapt_pose(config: Config, choices: Choices) -> None:
    dataset = config.test_dataloader.dataset
    if choices.boxes == 'gt':
        dataset.bbox_file = None
    elif choices.boxes is not None:
        dataset.bbox_file = str(Path(choices.boxes).absolute())
    boxes = dataset.get('bbox_file')
    if boxes and not Path(boxes).is_file():
        raise ValueError(
            f'{boxes} is not there: the published numbers use the boxes of a person detector with '
            'AP 56.4 (COCO_val2017_detections_AP_H_56_person.json, linked in the documentation of '
            'mmpose, "2D body keypoint datasets"); put it there or name it with --boxes FILE, or '
            'test with annotated boxes: --boxes gt.'
        )


def _drop_initialisation(node: Any) -> None:
    """Whole weights are loaded, so no part of a model may fetch its own."""
    if isinstance(node, dict):
        node.pop('init_cfg', None)
        node.pop('pretrained', None)
        for value in node.values():
            _drop_initialisation(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _drop_initialisation(value)


def network_of(config: Config) -> ConfigDict:
    """The model's own configuration, without the wrapper of a multi-scale test."""
    return config.model.get('module', config.model)


def classes_of(config: Config) -> int | None:
    """Number of classes of a classifier's head; None for other models."""
    network = network_of(config)
    head = network.get('cls_head') or (
        network.get('head') if 'decode_head' not in network else None
    )
    return head.get('num_classes') if head else None


def annotation_files(config: Config) -> list[Path]:
    """The files that list the samples of the test."""
    dataset = config.test_dataloader.dataset
    root = Path(dataset.get('data_root') or '')
    names = [dataset.get('ann_file'), dataset.get('bbox_file')]
    return [root / name for name in names if name]


def config_digest(config: Config, *hidden: Path) -> str:
    """sha256 of what decides the numbers: model, data pipeline and metric, wherever data lies."""
    parts = {
        'model': config.model,
        'dataset': config.test_dataloader.dataset,
        'evaluator': config.test_evaluator,
        'preprocessor': config.get('data_preprocessor'),
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    for path in sorted(map(str, hidden), key=len, reverse=True):
        text = text.replace(path, '')
    return hashlib.sha256(text.encode()).hexdigest()
