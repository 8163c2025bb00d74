# SPDX-License-Identifier: Apache-2.0
"""COCO's metrics of a result file, where the annotations are public (val2017)."""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from os import PathLike
from types import ModuleType

from ..issues import Issues
from ..official import read_coco_images
from .check import PAYLOAD, check_entries
from .write import convert_entries, read_entries

BOX_METRICS = (
    'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl',
)  # fmt: skip
KEYPOINT_METRICS = (
    'AP', 'AP50', 'AP75', 'APM', 'APL', 'AR', 'AR50', 'AR75', 'ARM', 'ARL',
)  # fmt: skip
# Engine: (package on the index, module, class that evaluates, module of COCO's reader).
ENGINES = {
    'pycocotools': ('pycocotools', 'pycocotools.cocoeval', 'COCOeval', 'pycocotools.coco'),
    'faster': ('faster-coco-eval', 'faster_coco_eval', 'COCOeval_faster', 'faster_coco_eval'),
}
_IOU_TYPES = {'coco-det': 'bbox', 'coco-segm': 'segm', 'coco-keypoints': 'keypoints'}
_PERCENT = 100


def score_coco(
    predictions: str | PathLike,
    task: str,
    annotations: str | PathLike,
    *,
    engine: str = 'pycocotools',
    decimals: int | None = None,
) -> tuple[dict[str, float], Issues]:
    """COCO's metrics of results.

    The results are scored as they would be submitted: masks and keypoints without boxes beside
    them, from which COCO's code would otherwise take the areas.

    Args:
        predictions: JSON results or an archive of them.
        task: ``'coco-det'``, ``'coco-segm'`` or ``'coco-keypoints'``.
        annotations: Annotation file; all of its images count.
        engine: ``'pycocotools'`` or ``'faster'`` (faster-coco-eval; the same numbers to 1e-9).
        decimals: Round coordinates first, to see what a submission's rounding costs.

    Returns:
        Metrics in percent by COCO's names (-1 where no object has the size), and notes.

    Raises:
        ValueError: Results that do not fit the annotations, or an engine that is not installed.
    """
    modules = _load_engine(engine)
    images = read_coco_images(annotations)
    entries = convert_entries(read_entries(predictions)[0], task, decimals)
    issues = Issues(str(predictions))
    check_entries(entries, task, images, issues)
    issues.refuse('Nothing was scored.')
    evaluator, reader = modules
    # Both engines report on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = reader.COCO(str(annotations))
        if not any(PAYLOAD[task] in item for item in truth.dataset.get('annotations', [])):
            raise ValueError(f'{annotations}: has no {PAYLOAD[task]} to score against.')
        evaluation = evaluator(truth, truth.loadRes(entries), _IOU_TYPES[task])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = KEYPOINT_METRICS if task == 'coco-keypoints' else BOX_METRICS
    metrics = {
        name: float(value) * _PERCENT if value >= 0 else -1.0
        for name, value in zip(names, evaluation.stats[: len(names)], strict=True)
    }
    return metrics, issues


def _load_engine(engine: str) -> tuple[type, ModuleType]:
    if engine not in ENGINES:
        raise ValueError(f'engine={engine!r}: expected one of {", ".join(ENGINES)}.')
    package, evaluator, name, reader = ENGINES[engine]
    try:
        return getattr(import_module(evaluator), name), import_module(reader)
    except ImportError as error:
        raise ValueError(
            f'engine={engine!r} needs the package {package}, which cannot be imported ({error}); '
            f'install it with pip install {package}.'
        ) from error
