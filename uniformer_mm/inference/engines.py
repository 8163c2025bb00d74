# SPDX-License-Identifier: Apache-2.0
"""The toolboxes' inferencers behind one call for each task: inputs in, results out.

A toolbox is imported when its task is asked for, not before.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..errors import UnreadableError
from ..recipes import TOOLBOXES
from .choice import Choice
from .clips import spread_frames
from .names import Names
from .results import Classification, Detections, LabelMap, Poses, Result

_MODULES = {'video': 'mmaction'}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the toolboxes' warnings that no weights are loaded: ours are, right after."""
    logger = logging.getLogger('mmengine')
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(before)


def import_toolbox(task: str) -> None:
    """Import what a task needs and make its registry the default.

    Raises:
        ValueError: It is not installed, or cannot be imported.
    """
    module = _MODULES.get(task, TOOLBOXES[task])
    try:
        with quiet():
            import_module(f'{module}.apis')
    except ImportError as error:
        raise ValueError(
            f'task={task!r} needs {TOOLBOXES[task]}, which cannot be imported ({error}); install '
            f'it with pip install "uniformer_mm[{task}]", or ask uniformer-mm doctor.'
        ) from error
    init_default_scope(module)


class Engine(ABC):
    """One task: builds the toolbox's inferencer without weights, and runs it.

    Args:
        choice: The toolbox's config.
        device: As in ``torch.device``.
        names: Classes and colours.

    Attributes:
        model: The network, to be filled.
        takes_clips: Whether an input is a whole clip instead of an image.
    """

    takes_clips = False

    def __init__(self, choice: Choice, device: str, names: Names) -> None:
        self.names = names
        self.model = self._build(choice, device)

    @abstractmethod
    def _build(self, choice: Choice, device: str) -> nn.Module: ...

    @abstractmethod
    def run(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Result]:
        """Results of a batch.

        Args:
            names: Name of each input.
            images: RGB images, (H, W, 3); for an engine that takes clips, paths or frames.
        """


def _bgr(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[..., ::-1]) for image in images]


class DetEngine(Engine):
    """mmdet's ``DetInferencer``."""

    def _build(self, choice: Choice, device: str) -> nn.Module:
        from mmdet.apis import DetInferencer

        self._inferencer = DetInferencer(choice.config, device=device, show_progress=False)
        return self._inferencer.model

    def run(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Result]:
        """See :meth:`Engine.run`."""
        found = self._inferencer(
            _bgr(images), batch_size=len(images), return_datasamples=True, no_save_vis=True
        )['predictions']
        results = []
        for name, image, sample in zip(names, images, found, strict=True):
            instances = sample.pred_instances.cpu()
            order = instances.scores.argsort(descending=True, stable=True)
            instances = instances[order]
            masks = instances.masks.numpy().astype(bool) if 'masks' in instances else None
            results.append(
                Detections(
                    name=name,
                    image=image,
                    boxes=instances.bboxes.float().numpy(),
                    scores=instances.scores.float().numpy(),
                    labels=instances.labels.numpy(),
                    masks=masks,
                    classes=self.names.classes,
                    colors=self.names.colors,
                )
            )
        return results


class SegEngine(Engine):
    """mmseg's ``MMSegInferencer``."""

    def _build(self, choice: Choice, device: str) -> nn.Module:
        from mmseg.apis import MMSegInferencer

        self._inferencer = MMSegInferencer(choice.config, device=device)
        self._inferencer.show_progress = False
        return self._inferencer.model

    def run(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Result]:
        """See :meth:`Engine.run`."""
        found = self._inferencer(_bgr(images), batch_size=1, return_datasamples=True)
        found = found if isinstance(found, list) else [found]
        return [
            LabelMap(
                name=name,
                image=image,
                labels=sample.pred_sem_seg.data[0].cpu().numpy(),
                classes=self.names.classes,
                colors=self.names.colors,
            )
            for name, image, sample in zip(names, images, found, strict=True)
        ]


class ClsEngine(Engine):
    """mmpretrain's ``ImageClassificationInferencer``."""

    def _build(self, choice: Choice, device: str) -> nn.Module:
        from mmpretrain import ImageClassificationInferencer

        self._inferencer = ImageClassificationInferencer(
            choice.config, pretrained=False, device=device, classes=self.names.classes
        )
        return self._inferencer.model

    def run(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Result]:
        """See :meth:`Engine.run`."""
        with _no_bar():
            found = self._inferencer(_bgr(images), batch_size=len(images), return_datasamples=True)
        return [
            Classification(
                name=name,
                image=image,
                probabilities=_probabilities(sample.pred_score),
                classes=self.names.classes,
            )
            for name, image, sample in zip(names, images, found, strict=True)
        ]


@contextmanager
def _no_bar() -> Iterator[None]:
    """mmpretrain draws a progress bar for each call; this switch of its own stops it."""
    from mmpretrain.utils import progress

    before, progress.disable_progress_bar = progress.disable_progress_bar, True
    try:
        yield
    finally:
        progress.disable_progress_bar = before


class VideoEngine(Engine):
    """mmaction2's ``ActionRecogInferencer``."""

    takes_clips = True

    def _build(self, choice: Choice, device: str) -> nn.Module:
        from mmaction.apis.inferencers import ActionRecogInferencer

        self._logits = choice.config.model.cls_head.get('average_clips') == 'score'
        # One for files and one for frames in memory: they differ in their transforms alone.
        self._inferencer = ActionRecogInferencer(choice.config, device=device)
        self._inferencer.show_progress = False
        config = Config(choice.config.to_dict())
        self._inferencer.input_format = 'array'
        self._array_pipeline = self._inferencer._init_pipeline(config)
        self._inferencer.input_format = 'video'
        self._file_pipeline = self._inferencer.pipeline
        return self._inferencer.model

    def run(self, names: Sequence[str], images: Sequence[Path | np.ndarray]) -> list[Result]:
        """See :meth:`Engine.run`."""
        from decord import DECORDError

        results = []
        for name, clip in zip(names, images, strict=True):
            middle = _middle_frame(clip)
            from_file = isinstance(clip, Path)
            self._inferencer.pipeline = self._file_pipeline if from_file else self._array_pipeline
            try:
                (sample,) = self._inferencer(
                    str(clip) if from_file else clip, return_datasamples=True
                )['predictions']
            except DECORDError as error:
                why = str(error).strip().splitlines()[-1]
                raise UnreadableError(f'{clip}: decord cannot decode it ({why}).') from error
            scores = sample.pred_score
            results.append(
                Classification(
                    name=name,
                    image=middle,
                    clip=clip,
                    probabilities=_probabilities(scores.softmax(-1) if self._logits else scores),
                    classes=self.names.classes,
                )
            )
        return results


class PoseEngine(Engine):
    """mmpose's ``inference_topdown``, on boxes from elsewhere or on the whole image.

    ``MMPoseInferencer`` takes its boxes from a detector of its own only.

    Attributes:
        find_boxes: From an RGB image to boxes (N, 4) and scores (N,); None: the whole image.
    """

    find_boxes: Any = None

    def _build(self, choice: Choice, device: str) -> nn.Module:
        from mmpose.apis import init_model
        from mmpose.apis.inference import dataset_meta_from_config

        model = init_model(choice.config, device=device)
        model.dataset_meta = dataset_meta_from_config(choice.config, 'test')
        return model

    def run(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Result]:
        """See :meth:`Engine.run`."""
        return [self._one(name, image) for name, image in zip(names, images, strict=True)]

    def run_boxes(
        self, name: str, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray
    ) -> Poses:
        """The persons in boxes that are known.

        Args:
            name: Name of the image.
            image: RGB image.
            boxes: Corners, (N, 4).
            scores: How sure each box is, (N,).
        """
        from mmpose.apis import inference_topdown

        meta = self.model.dataset_meta
        points = np.zeros((0, meta['num_keypoints'], 2), np.float32)
        certain = points[..., 0]
        if len(boxes):
            found = inference_topdown(self.model, _bgr([image])[0], boxes.astype(np.float32))
            points = np.concatenate([sample.pred_instances.keypoints for sample in found])
            certain = np.concatenate([sample.pred_instances.keypoint_scores for sample in found])
        return Poses(
            name=name,
            image=image,
            keypoints=points,
            keypoint_scores=certain,
            boxes=boxes,
            box_scores=scores,
            **skeleton_of(meta),
        )

    def _one(self, name: str, image: np.ndarray) -> Poses:
        height, width = image.shape[:2]
        boxes, scores = np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)
        if self.find_boxes is not None:
            boxes, scores = self.find_boxes(image)
        return self.run_boxes(name, image, boxes, scores)


def skeleton_of(meta: dict) -> dict[str, Any]:
    """The fields of :class:`~uniformer_mm.inference.Poses` that mmpose's ``dataset_meta`` knows."""
    names = meta['keypoint_id2name']
    return {
        'keypoint_names': [names[index] for index in range(meta['num_keypoints'])],
        'links': [tuple(pair) for pair in meta['skeleton_links']],
        'point_colors': [tuple(map(int, color)) for color in meta['keypoint_colors']],
        'link_colors': [tuple(map(int, color)) for color in meta['skeleton_link_colors']],
    }


def _probabilities(scores: Tensor) -> np.ndarray:
    return scores.detach().float().cpu().numpy()


def _middle_frame(clip: Path | np.ndarray) -> np.ndarray:
    return spread_frames(clip, 1)[0] if isinstance(clip, Path) else clip[len(clip) // 2]


ENGINES: dict[str, type[Engine]] = {
    'det': DetEngine,
    'seg': SegEngine,
    'pose': PoseEngine,
    'video': VideoEngine,
    'cls': ClsEngine,
}


def default_device() -> str:
    """The GPU where torch sees one, else the CPU."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'
