# SPDX-License-Identifier: Apache-2.0
"""A test loop of mmengine that leaves out what is finished and scores from the store."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.amp import autocast

from ...registry import LOOPS, register
from .samples import Sample, choose, list_digest, list_samples, split_missing
from .store import PredictionStore, Stored

PROGRESS = '@progress '
MISSING_RULES = ('skip', 'refuse')


@register(LOOPS)
class ResumableTestLoop(BaseLoop):
    """Test on the samples that are not in the store yet, then compute the metrics from the store.

    Args:
        runner: The runner.
        dataloader: Configuration of the loader; its sampler is replaced.
        evaluator: Configuration of the metrics, or the evaluator.
        folder: Where the store lies; must exist.
        identity: What the results depend on beside the data list.
        limit: Number of files of a random subset; None tests everything.
        seed: Chooses the subset.
        missing: What to do about files that are not there: ``'skip'`` or ``'refuse'``.
        files: Annotation files that are part of the data list's digest.
        num_classes: Labels must be below this; None does not check.
        shard: Which process this is.
        shards: Number of processes that share the samples.
        score: Whether to compute the metrics at the end; False only collects.

    Raises:
        ValueError: An empty data set, missing files, labels out of range, a store of another test.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        folder: str,
        identity: dict[str, str] | None = None,
        limit: int | None = None,
        seed: int = 0,
        missing: str = 'refuse',
        files: tuple[str, ...] = (),
        num_classes: int | None = None,
        shard: int = 0,
        shards: int = 1,
        score: bool = True,
        fp16: bool = False,
    ) -> None:
        dataset = DATASETS.build(dataloader['dataset'])
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        listed = list_samples(dataset)
        _check_labels(listed, num_classes)
        there, absent = split_missing(choose(listed, limit, seed))
        _check_missing(there, absent, missing)
        self.chosen = there
        self.counts = {
            'list_sha256': list_digest(listed, files),
            'listed': len(listed),
            'files': len({sample.key for sample in there}),
            'samples': len(there),
            'missing': len({sample.key for sample in absent}),
        }
        identity = {**(identity or {}), 'list_sha256': self.counts['list_sha256']}
        identity |= {'limit': str(limit), 'seed': str(seed)}
        self.store = PredictionStore(folder, identity, rank=shard)
        # Shares are fixed before what is finished is left out: processes start at different times.
        mine, finished = there[shard::shards], self.store.finished()
        self.remaining = [sample for sample in mine if sample.position not in finished]
        self.already = len(mine) - len(self.remaining)
        loader = {**dataloader, 'dataset': dataset, 'drop_last': False}
        loader['sampler'] = [sample.position for sample in self.remaining]
        super().__init__(runner, loader)
        if not isinstance(evaluator, Evaluator):
            evaluator = runner.build_evaluator(evaluator)
        self.evaluator = evaluator
        self.counts['listed_files'] = count_files(listed, evaluator)
        self.evaluator.dataset_meta = runner.visualizer.dataset_meta = dataset.metainfo
        self.score = score
        self.shard = shard
        self.limited = limit is not None
        self.fp16 = fp16

    def run(self) -> dict[str, float]:
        """Collect, then score; returns the metrics (none if only collecting)."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        for metric in self.evaluator.metrics:
            metric.results.clear()
        self._collect()
        metrics = self._score() if self.score else {}
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        self.store.close()
        return metrics

    @torch.no_grad()
    def _collect(self) -> None:
        done, total = 0, len(self.remaining)
        self._tell(done, total)
        if not total:
            return
        for index, batch in enumerate(self.dataloader):
            self.runner.call_hook('before_test_iter', batch_idx=index, data_batch=batch)
            started = time.perf_counter()
            with autocast(enabled=self.fp16):
                outputs = self.runner.model.test_step(batch)
            self.evaluator.process(data_samples=outputs, data_batch=batch)
            seconds = (time.perf_counter() - started) / len(outputs)
            samples = self.remaining[done : done + len(outputs)]
            kept = _taken_results(self.evaluator, len(samples))
            self.store.add([
                Stored(sample.position, sample.key, str(sample.path), seconds, results)
                for sample, results in zip(samples, kept, strict=True)
            ])  # fmt: skip
            done += len(samples)
            self._tell(done, total)
            self.runner.call_hook(
                'after_test_iter', batch_idx=index, data_batch=batch, outputs=outputs
            )

    def _tell(self, done: int, total: int) -> None:
        """One line for the process that shows the progress bar."""
        state = {'done': done, 'total': total, 'already': self.already, 'shard': self.shard}
        sys.stdout.write(f'\n{PROGRESS}{json.dumps(state)}\n')
        sys.stdout.flush()

    def _score(self) -> dict[str, float]:
        """Hand every metric its results in the order of the data set."""
        positions = {sample.position for sample in self.chosen}
        if self.limited:
            restrict_truth(self.evaluator, self.dataloader.dataset, self.chosen)
        for stored in self.store.read():
            if stored.position in positions:
                for metric, result in zip(self.evaluator.metrics, stored.results, strict=True):
                    metric.results.append(result)
                positions.remove(stored.position)
        if positions:
            raise ValueError(
                f'{len(positions)} samples are not tested yet; run the same command again.'
            )
        return self.evaluator.evaluate(len(self.chosen))


def _taken_results(evaluator: Evaluator, count: int) -> list[list[Any]]:
    """Take out of every metric what it kept of the last batch: a list for each sample."""
    for metric in evaluator.metrics:
        if len(metric.results) != count:
            raise ValueError(
                f'{type(metric).__name__} kept {len(metric.results)} results of {count} samples; '
                'only metrics that keep one of each can be resumed.'
            )
    kept = [list(results) for results in zip(*(m.results for m in evaluator.metrics), strict=True)]
    for metric in evaluator.metrics:
        metric.results.clear()
    return kept


def _truth(metric: Any) -> Any:
    """pycocotools' COCO of a metric, if it has one."""
    # mmdet keeps its API in _coco_api, mmpose in coco.
    return getattr(metric, '_coco_api', None) or getattr(metric, 'coco', None)


def count_files(samples: list[Sample], evaluator: Evaluator) -> int:
    """Images or videos of a list: those of COCO's ground truth, with persons in them or not."""
    for metric in evaluator.metrics:
        if (api := _truth(metric)) is not None:
            return len(api.imgs)
    return len({sample.key for sample in samples})


def restrict_truth(evaluator: Evaluator, dataset: Any, samples: list[Sample]) -> None:
    """Leave the ground truth of other images out of COCO metrics, which would count as missed."""
    chosen = {dataset.get_data_info(s.position).get('img_id') for s in samples}
    for metric in evaluator.metrics:
        api = _truth(metric)
        if api is None:
            continue
        api.dataset['images'] = [i for i in api.dataset['images'] if i['id'] in chosen]
        annotations = api.dataset['annotations']
        api.dataset['annotations'] = [a for a in annotations if a['image_id'] in chosen]
        api.createIndex()
        if hasattr(metric, 'img_ids'):
            metric.img_ids = api.getImgIds()


def _check_labels(samples: list[Sample], num_classes: int | None) -> None:
    labels = [int(s.label) for s in samples if s.label.lstrip('-').isdigit()]
    if num_classes is not None and labels and not 0 <= min(labels) <= max(labels) < num_classes:
        raise ValueError(
            f'the data list has labels from {min(labels)} to {max(labels)}, the model '
            f'{num_classes} classes (0 to {num_classes - 1}); use the list of its data set.'
        )


def _check_missing(there: list[Sample], absent: list[Sample], rule: str) -> None:
    if rule not in MISSING_RULES:
        raise ValueError(f'missing={rule!r} is not known; use one of {MISSING_RULES}.')
    if not there:
        raise ValueError(
            f'none of the {len(absent)} listed files is there, the first would be '
            f'{absent[0].path}; check --data.'
        )
    if absent and rule == 'refuse':
        raise ValueError(
            f'{len({s.key for s in absent})} of the listed files are missing, the first is '
            f'{absent[0].path}; complete the data set.'
        )


def read_progress(line: str) -> dict[str, int] | None:
    """What the loop said in a line of output, or None for other lines."""
    return json.loads(line[len(PROGRESS) :]) if line.startswith(PROGRESS) else None


def folder_of(path: str | Path) -> Path:
    """The folder of a test run, made if need be.

    Raises:
        ValueError: It cannot be made.
    """
    path = Path(path).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'{path} cannot be made ({error.strerror}); choose another.') from None
    return path
