# SPDX-License-Identifier: Apache-2.0
"""Saved class scores of videos.

Three forms are read: the pickle of mmengine's ``DumpResults`` (through an allow-list), ``.npz``
with ``ids [N]`` and ``scores [N, C]``, and JSON ``{"scores": {id: [C numbers]}}``. The last two
may state ``class_order``, one of :data:`uniformer_mm.labels.CLASS_ORDERS`. Only the order of scores
within a video matters, so logits and probabilities serve alike.

Letters: ``N`` videos, ``C`` classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from ..issues import shown
from ..official import read_videos, video_id
from ..reading import open_members, parse_json, read_bytes
from .unpickle import read_results

# Keys under which a data sample says which video it is, if the pipeline packed one of them.
_NAME_KEYS = ('video_id', 'filename', 'frame_dir', 'img_key')


@dataclass(frozen=True)
class VideoScores:
    """Class scores of videos.

    Attributes:
        source: File that they come from.
        ids: Ids of the videos, unique.
        scores: Scores ``[N, C]``, float64, finite.
        labels: Class indices that were saved beside the scores; -1 where none is known.
        class_order: Class order that the file states.
    """

    source: str
    ids: tuple[str, ...]
    scores: np.ndarray
    labels: tuple[int, ...] | None = None
    class_order: str | None = None

    def top(self, count: int) -> np.ndarray:
        """Class indices ``[N, count]``, best first; of equal scores the lower index first."""
        return np.argsort(-self.scores, axis=1, kind='stable')[:, :count]

    def probabilities(self) -> np.ndarray:
        """Scores ``[N, C]`` if each lies in 0..1, else their softmax."""
        scores_NC = self.scores
        if scores_NC.min() >= 0 and scores_NC.max() <= 1:
            return scores_NC
        powers_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        return powers_NC / powers_NC.sum(axis=1, keepdims=True)

    def require_classes(self, count: int, benchmark: str) -> None:
        """Raise unless there are ``count`` scores for every video."""
        if self.scores.shape[1] != count:
            raise ValueError(
                f'{self.source}: {self.scores.shape[1]} scores for each video, but {benchmark} '
                f'has {count} classes.'
            )

    def require_videos(
        self, official: list[str], *, allow_missing: bool
    ) -> tuple[VideoScores, int]:
        """The scores in the order of the official list.

        Args:
            official: Ids that a submission is about.
            allow_missing: Accept that videos have no scores.

        Returns:
            Scores of the listed videos, and how many have none.

        Raises:
            ValueError: Scores of other videos, or missing ones.
        """
        row = {name: index for index, name in enumerate(self.ids)}
        listed = set(official)
        foreign = [name for name in self.ids if name not in listed]
        if foreign:
            raise ValueError(
                f'{self.source}: {len(foreign):,} of {len(self.ids):,} videos are not in the '
                f'official list of {len(official):,}, the first is {shown(foreign[0])}.'
            )
        missing = [name for name in official if name not in row]
        if missing and not allow_missing:
            raise ValueError(
                f'{self.source}: {len(missing):,} of {len(official):,} listed videos have no '
                f'scores, the first is {shown(missing[0])}; test them too, or pass '
                '--allow-missing (they count as wrong).'
            )
        order = [row[name] for name in official if name in row]
        labels = self.labels and tuple(self.labels[index] for index in order)
        ids = tuple(self.ids[index] for index in order)
        kept = replace(self, ids=ids, scores=self.scores[order], labels=labels)
        return kept, len(missing)


def read_video_scores(
    path: str | PathLike, *, order_file: str | PathLike | None = None
) -> VideoScores:
    """Read saved scores.

    Args:
        path: ``.pkl``, ``.npz`` or ``.json`` file.
        order_file: List of videos that the model was tested on, for pickles that name no videos:
            mmaction2's default pipeline does not keep names, and ``DumpResults`` keeps the order.

    Raises:
        ValueError: Unreadable, empty, unequal numbers of classes, values that are not finite, a
            video twice, or a pickle without names where ``order_file`` is not given or does not
            fit.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in ('.pkl', '.pickle'):
        found = _read_pickle(path, order_file)
    elif suffix in ('.npz', '.json'):
        found = _read_npz(path) if suffix == '.npz' else _read_json(path)
    else:
        raise ValueError(f'{path}: scores are read from .pkl, .npz and .json files.')
    scores_NC = found.scores
    if scores_NC.ndim != 2 or len(scores_NC) != len(found.ids) or scores_NC.size == 0:
        raise ValueError(
            f'{path}: {len(found.ids)} videos and scores of shape {list(scores_NC.shape)}; '
            'expected [videos, classes], none of them zero.'
        )
    wrong = np.argwhere(~np.isfinite(scores_NC))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f'{path}: video {shown(found.ids[row])}: score of class {column} is '
            f'{scores_NC[row, column]}; scores must be finite.'
        )
    seen: set[str] = set()
    twice = next((name for name in found.ids if name in seen or seen.add(name)), None)
    if twice is not None:
        raise ValueError(f'{path}: video {shown(twice)} has scores twice.')
    return found


def _read_pickle(path: Path, order_file: str | PathLike | None) -> VideoScores:
    samples = read_results(path)
    rows, labels, names = [], [], []
    for index, sample in enumerate(samples):
        score = sample.get('pred_score')
        if not isinstance(score, torch.Tensor) or score.ndim != 1:
            raise ValueError(
                f'{path}: sample {index}: pred_score is {type(score).__name__}, expected a vector '
                'of class scores as mmaction2 writes it.'
            )
        rows.append(score.detach().to('cpu', torch.float64).numpy())
        label = sample.get('gt_label')
        single = isinstance(label, torch.Tensor) and label.numel() == 1
        labels.append(int(label) if single and label.dtype == torch.int64 else -1)
        names.append(next((sample[key] for key in _NAME_KEYS if key in sample), None))
    if len({len(row) for row in rows}) > 1:
        index = next(i for i, row in enumerate(rows) if len(row) != len(rows[0]))
        raise ValueError(
            f'{path}: sample {index} has {len(rows[index])} scores, sample 0 has {len(rows[0])}.'
        )
    ids = _names(path, names, labels, order_file)
    return VideoScores(str(path), ids, np.array(rows), tuple(labels))


def _names(
    path: Path, names: list, labels: list[int], order_file: str | PathLike | None
) -> tuple[str, ...]:
    if order_file is None:
        if not all(isinstance(name, str) for name in names):
            raise ValueError(
                f'{path}: the samples do not say which video they are (mmaction2 drops the names '
                'by default); pass the list that was tested with --tested-list, or test with '
                'uniformer-mm submit --config, which keeps them.'
            )
        return tuple(map(video_id, names))
    listed = read_videos(order_file)
    if len(listed) != len(names):
        raise ValueError(
            f'{path}: {len(names):,} samples, but {order_file} lists {len(listed):,} videos.'
        )
    for index, ((name, text), sample_name) in enumerate(zip(listed.items(), names, strict=True)):
        if isinstance(sample_name, str) and video_id(sample_name) != name:
            raise ValueError(
                f'{path}: sample {index} is {shown(sample_name)}, but {order_file} has '
                f'{shown(name)} there.'
            )
        known = text is not None and text.isdecimal() and labels[index] >= 0
        if known and int(text) != labels[index]:
            raise ValueError(
                f'{path}: sample {index} has label {labels[index]}, but {order_file} has {text} '
                'there; it is not the list that was tested, or not its order.'
            )
    return tuple(listed)


def _read_npz(path: Path) -> VideoScores:
    open_members(path)  # an npz file is a zip file: the same bounds hold
    try:
        with np.load(path, allow_pickle=False) as content:
            ids, scores_NC = content['ids'], content['scores']
            order = str(content['class_order']) if 'class_order' in content else None
        if not isinstance(ids, np.ndarray) or not isinstance(scores_NC, np.ndarray):
            raise ValueError('a member is no .npy file')
    # Damaged members fail in every way that zipfile, its decompressors and NumPy can.
    except Exception as error:
        raise ValueError(
            f'{path}: expected arrays ids (text) and scores (numbers), no objects ({error}).'
        ) from error
    if ids.ndim != 1 or ids.dtype.kind not in 'Ui' or scores_NC.dtype.kind not in 'fiu':
        raise ValueError(
            f'{path}: ids {ids.dtype}{list(ids.shape)} and scores {scores_NC.dtype}; expected a '
            'list of text and numbers.'
        )
    names = tuple(video_id(str(name)) for name in ids.tolist())
    return VideoScores(str(path), names, scores_NC.astype(np.float64), class_order=order)


def _read_json(path: Path) -> VideoScores:
    content = parse_json(read_bytes(path), str(path))
    scores = content.get('scores') if isinstance(content, dict) else None
    if not isinstance(scores, dict):
        raise ValueError(f'{path}: expected {{"scores": {{id: [numbers]}}}}.')
    lengths = {len(row) if isinstance(row, list) else -1 for row in scores.values()}
    if len(lengths) > 1 or -1 in lengths:
        raise ValueError(
            f'{path}: every video needs the same number of scores, found {sorted(lengths)}.'
        )
    try:
        scores_NC = np.array(list(scores.values()), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'{path}: a score is no number ({error}).') from error
    order = content.get('class_order')
    if order is not None and not isinstance(order, str):
        raise ValueError(f'{path}: class_order is {shown(order)}, expected text.')
    return VideoScores(str(path), tuple(map(video_id, scores)), scores_NC, class_order=order)
