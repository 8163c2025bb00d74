# SPDX-License-Identifier: Apache-2.0
"""A model and its weights, ready for images and clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..errors import UnreadableError
from ..evaluation.running.weights import load_model
from .choice import Choice, choose
from .clips import read_frames
from .engines import ENGINES, PoseEngine, default_device, import_toolbox, quiet
from .inputs import Input, Source, find_sources, read_image
from .names import class_count, names_of
from .results import Poses, Result

PRECISIONS = {None: None, 'fp16': torch.float16, 'bf16': torch.bfloat16}
"""Choices of ``precision``, and the type that autocast computes in."""

PERSON = 'person'
_DETECTION_SCORE = 0.3


@dataclass(frozen=True)
class Outcome:
    """What became of one image, frame or clip.

    Attributes:
        source: The input.
        frame: Number of the frame, where an image model runs through a clip; else None.
        result: The prediction; None where the input cannot be read.
        error: Why not.
    """

    source: Source
    frame: int | None = None
    result: Result | None = None
    error: str = ''


class Predictor:
    """Predicts; made by :func:`load_predictor`.

    Args:
        choice: Config and weights.
        device: As in ``torch.device``; None: the GPU if there is one.
        precision: Key of :data:`PRECISIONS`.
        classes: Names to use instead of the known ones.
        detector: For a pose model, what finds the persons.
    """

    def __init__(
        self,
        choice: Choice,
        device: str | torch.device | None = None,
        precision: str | None = None,
        classes: Sequence[str] | None = None,
        detector: Predictor | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f'precision={precision!r} is not known; use fp16, bf16 or None.')
        if detector is not None and (choice.task != 'pose' or detector.task != 'det'):
            raise ValueError(
                f'detector= finds persons for a pose model; the model is of task {choice.task!r} '
                f'and the detector of {detector.task!r}.'
            )
        self.device = torch.device(device or default_device())
        self.task = choice.task
        self._dtype = PRECISIONS[precision]
        import_toolbox(choice.task)
        names = names_of(choice, classes)
        with quiet():
            self._engine = ENGINES[choice.task](choice, str(self.device), names)
        order = None
        if choice.recipe is not None and choice.recipe.row.class_order:
            count = class_count(choice.config, choice.task)
            order = f'kinetics{count}_alphabetical' if count in (400, 600) else None
        load_model(
            self._engine.model, choice.weights, choice.task, recipe=choice.recipe, class_order=order
        )
        self.classes = names.classes
        if detector is not None:
            self._engine.find_boxes = detector.find_persons

    @property
    def takes_clips(self) -> bool:
        """Whether an input is a whole clip; else clips are predicted frame by frame."""
        return self._engine.takes_clips

    @property
    def model(self) -> torch.nn.Module:
        """The toolbox's model."""
        return self._engine.model

    def __call__(self, inputs: Input | Sequence[Input], batch: int = 1) -> list[Result]:
        """Predict everything, in order.

        Args:
            inputs: See :func:`~uniformer_mm.inference.inputs.find_sources`.
            batch: Images that are predicted at a time.

        Raises:
            UnreadableError: An input cannot be read.
        """
        results = []
        for outcome in self.stream(find_sources(inputs), batch):
            if outcome.result is None:
                raise UnreadableError(outcome.error)
            results.append(outcome.result)
        return results

    def stream(self, sources: Iterator[Source], batch: int = 1) -> Iterator[Outcome]:
        """Predict one after another; what cannot be read is an outcome too.

        Args:
            sources: What to predict.
            batch: Images that are predicted at a time.

        Raises:
            ValueError: ``batch`` is less than 1.
        """
        if batch < 1:
            raise ValueError(f'batch={batch} must be 1 or more.')
        waiting: list[tuple[Outcome, np.ndarray | Path]] = []
        for outcome, value in self._open(sources):
            if outcome.error:
                yield from self._run(waiting)
                waiting = []
                yield outcome
                continue
            waiting.append((outcome, value))
            if len(waiting) == batch:
                yield from self._run(waiting)
                waiting = []
        yield from self._run(waiting)

    def predict_boxes(
        self, name: str, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray
    ) -> Poses:
        """The poses in boxes that are known; see :meth:`PoseEngine.run_boxes`."""
        if not isinstance(self._engine, PoseEngine):
            raise ValueError(f'predict_boxes is for pose models; this one is of {self.task!r}.')
        with torch.no_grad(), self._autocast():
            return self._engine.run_boxes(name, image, boxes, scores)

    def find_persons(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) and scores (N,) of the persons in an RGB image.

        Of all objects, where the detector knows no class of that name.
        """
        (found,) = self(image)
        kept = found.scores >= _DETECTION_SCORE
        if PERSON in self.classes:
            kept &= found.labels == self.classes.index(PERSON)
        return found.boxes[kept], found.scores[kept]

    def _open(self, sources: Iterator[Source]) -> Iterator[tuple[Outcome, np.ndarray | Path]]:
        for source in sources:
            try:
                if not self.takes_clips:
                    for frame, image in self._images(source):
                        yield Outcome(source, frame), image
                elif not source.is_clip or isinstance(source.value, int):
                    raise UnreadableError(
                        f'{source.name}: a video model takes clips (files or arrays of frames).'
                    )
                else:
                    yield Outcome(source), source.value
            except UnreadableError as error:
                yield Outcome(source, error=str(error)), source.name

    @staticmethod
    def _images(source: Source) -> Iterator[tuple[int | None, np.ndarray]]:
        if not source.is_clip:
            yield None, read_image(source)
        elif isinstance(source.value, np.ndarray):
            yield from enumerate(source.value)
        else:
            yield from enumerate(read_frames(source.value))

    def _run(self, waiting: list[tuple[Outcome, np.ndarray | Path]]) -> Iterator[Outcome]:
        if not waiting:
            return
        names = [
            outcome.source.name + ('' if outcome.frame is None else f'#{outcome.frame}')
            for outcome, _ in waiting
        ]
        try:
            with torch.no_grad(), self._autocast():
                results = self._engine.run(names, [value for _, value in waiting])
        except UnreadableError as error:
            if len(waiting) == 1:
                yield Outcome(waiting[0][0].source, error=str(error))
                return
            for one in waiting:
                yield from self._run([one])
            return
        for (outcome, _), result in zip(waiting, results, strict=True):
            yield Outcome(outcome.source, outcome.frame, result)

    def _autocast(self) -> AbstractContextManager:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)


def load_predictor(
    model: str | PathLike | Config | None = None,
    weights: str | PathLike | None = None,
    *,
    task: str | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    classes: Sequence[str] | None = None,
    detector: str | PathLike | Config | Predictor | None = None,
    detector_weights: str | PathLike | None = None,
) -> Predictor:
    """Load a model once, for many inputs.

    Args:
        model: Row of ``uniformer-mm recipes``, name of its weights, or a config (path or loaded).
            None: the config that the checkpoint carries, or the usual model of the task.
        weights: Path or ``uniformer://`` name; None: the row's own.
        task: One of det, seg, pose, video, cls, where neither model nor weights are named; None:
            det.
        device: As in ``torch.device``; None: the GPU if there is one.
        precision: ``'fp16'`` or ``'bf16'``; None: float32.
        classes: Names of the classes, where the known ones are not wanted.
        detector: For a pose model, what finds the persons: as ``model``, or a predictor. Without
            one the whole image is taken for one person.
        detector_weights: As ``weights``, of the detector.

    Returns:
        The predictor.

    Raises:
        ValueError: A choice that cannot be; a toolbox or weights that are not there.
    """
    if detector_weights is not None or isinstance(detector, str | PathLike | Config):
        detector = load_predictor(
            detector, detector_weights, task='det', device=device, precision=precision
        )
    choice = choose(model, weights, task)
    return Predictor(choice, device, precision, classes, detector)


def predict(
    inputs: Input | Sequence[Input],
    model: str | PathLike | Config | None = None,
    weights: str | PathLike | None = None,
    *,
    batch: int = 1,
    **options,
) -> list[Result]:
    """Predict images and clips; see :func:`load_predictor` to do so again and again.

    Args:
        inputs: See :func:`~uniformer_mm.inference.inputs.find_sources`.
        model: See :func:`load_predictor`.
        weights: See :func:`load_predictor`.
        batch: Images that are predicted at a time.
        **options: The other arguments of :func:`load_predictor`.

    Returns:
        A result for each image, each clip of a video model, and each frame for other models.

    Raises:
        UnreadableError: An input cannot be read.
        ValueError: See :func:`load_predictor`.
    """
    return load_predictor(model, weights, **options)(inputs, batch)
