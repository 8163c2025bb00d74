# SPDX-License-Identifier: Apache-2.0
"""The files of a prediction: drawn images and clips, label maps, and one file of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_text
from .clips import USUAL_RATE, ClipWriter, frame_rate
from .inputs import Source
from .predictor import Outcome, Predictor
from .results import Classification, Detections, LabelMap, Poses

NUMBERS = 'predictions.json'


class Writer:
    """Writes results below a folder as they come; what is there under the same names is replaced.

    Args:
        folder: Where to.
        predictor: What predicts.
        score: Least score of an object or a keypoint that is drawn.
    """

    def __init__(self, folder: Path, predictor: Predictor, score: float) -> None:
        self.folder = folder
        self._predictor = predictor
        self._score = score
        self._taken: set[Path] = set()
        self._entries: list[dict[str, Any]] = []
        self._film: ClipWriter | None = None
        self._film_source: Source | None = None
        self._example: Any = None

    def __enter__(self) -> Writer:
        return self

    def add(self, outcome: Outcome) -> Path | None:
        """Write what belongs to one result.

        Returns:
            The drawn file; None for frames of a clip but the first.

        Raises:
            ValueError: The folder cannot be written, or the file would take an input's place.
        """
        result = self._example = outcome.result
        if isinstance(result, Detections | Poses):
            result.drawn_score = self._score
        entry = result.to_dict()
        path = None
        if outcome.frame is not None:
            path = self._add_frame(outcome)
        else:
            self.finish_clip()
            suffix = (
                '.mp4' if isinstance(result, Classification) and result.clip is not None else '.png'
            )
            path = self._free(outcome.source, suffix)
            result.save(path)
        if isinstance(result, LabelMap) and outcome.frame is None:
            labels = self.folder / 'labels' / f'{path.stem}.png'
            result.save_labels(labels)
            entry['label_map'] = labels.relative_to(self.folder).as_posix()
        self._entries.append(entry)
        return path

    def finish_clip(self) -> None:
        """Complete the clip that is being written, if one is."""
        film, self._film, self._film_source = self._film, None, None
        if film is not None:
            film.__exit__(None, None, None)

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None and kind is not KeyboardInterrupt:
            film, self._film = self._film, None
            if film is not None:
                film.__exit__(kind, error, trace)
            return
        self.finish_clip()
        if self._entries:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / NUMBERS, json.dumps(self.numbers(), ensure_ascii=False))

    def numbers(self) -> dict[str, Any]:
        """What :data:`NUMBERS` holds.

        Objects and persons: COCO's ``images``, ``annotations`` and ``categories``, each annotation
        with its ``score``. Otherwise ``classes`` and the ``predictions`` in their order.
        """
        if not isinstance(self._example, Detections | Poses):
            numbers = {'classes': list(self._predictor.classes), 'predictions': self._entries}
            if isinstance(self._example, LabelMap):
                numbers['palette'] = [list(color) for color in self._example.colors]
            return numbers
        images, annotations = [], []
        for number, entry in enumerate(self._entries, 1):
            images.append({'id': number, **{k: v for k, v in entry.items() if k != 'annotations'}})
            for one in entry['annotations']:
                annotations.append({'id': len(annotations) + 1, 'image_id': number, **one})
        return {'images': images, 'annotations': annotations, 'categories': self._categories()}

    def _categories(self) -> list[dict[str, Any]]:
        if isinstance(self._example, Poses):
            return [
                {
                    'id': 1,
                    'name': 'person',
                    'keypoints': list(self._example.keypoint_names),
                    'skeleton': [[a + 1, b + 1] for a, b in self._example.links],
                }
            ]
        return [{'id': i, 'name': name} for i, name in enumerate(self._predictor.classes, 1)]

    def _add_frame(self, outcome: Outcome) -> Path | None:
        path = None
        if self._film_source is not outcome.source:
            self.finish_clip()
            path = self._free(outcome.source, '.mp4')
            path.parent.mkdir(parents=True, exist_ok=True)
            value = outcome.source.value
            rate = frame_rate(value) if isinstance(value, Path | int) else USUAL_RATE
            self._film = ClipWriter(path, rate).__enter__()
            self._film_source = outcome.source
        self._film.write(outcome.result.draw())
        return path

    def _free(self, source: Source, suffix: str) -> Path:
        stem = Path(source.name).stem
        path, number = self.folder / f'{stem}{suffix}', 2
        while path in self._taken:
            path, number = self.folder / f'{stem}_{number}{suffix}', number + 1
        self._taken.add(path)
        if isinstance(source.value, Path) and path.resolve() == source.value.resolve():
            raise ValueError(
                f'out={str(self.folder)!r} holds the input {source.name}, which the result would '
                'replace; choose another folder.'
            )
        return path
