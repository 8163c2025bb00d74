# SPDX-License-Identifier: Apache-2.0
"""A loader that can begin anywhere, and whose samples do not depend on what was loaded before.

mmengine seeds each worker once. With ``persistent_workers`` its generators then run on, so what a
sample draws depends on all samples before it, which no checkpoint knows; without, every epoch draws
the same. Here each sample has a seed of its own, from the run's seed, rank, epoch and position.
Batches are skipped where they are lists of indices, before anything is decoded.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from . import generators

# What a worker notes about itself: process id, batch, place in the batch (IDLE between batches).
_FIELDS = 3
IDLE = -1
# Batches whose indices are remembered, to name samples: many more than loaders read ahead.
_REMEMBERED = 512

_progress: Any = None


class SeededBatch(list):
    """The indices of a batch. Whoever walks along it finds the generators seeded for each sample.

    PyTorch's fetcher does: ``[dataset[index] for index in batch]``, in a worker or in the main
    process, whose own generators are put back at the end.
    """

    def __init__(self, indices: list[int], position: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.position = position

    def __reduce__(self) -> tuple:
        return type(self), (self[:], self.position)

    def __iter__(self) -> Iterator[int]:
        worker = get_worker_info()
        before = generators.capture(gpu=False) if worker is None else None
        try:
            for place in range(len(self)):
                generators.seed_all(generators.seed_for(*self.position, place))
                _note(worker, self.position[-1], place)
                yield self[place]
        finally:
            _note(worker, self.position[-1], IDLE)
            if before is not None:
                generators.restore(before)


def _note(worker: Any, batch: int, place: int) -> None:
    if worker is not None and _progress is not None:
        _progress[_FIELDS * worker.id + 1] = batch
        _progress[_FIELDS * worker.id + 2] = place


class PositionedBatches(Sampler):
    """Another batch sampler's batches, with their position in the run.

    Attributes:
        epoch: Goes into the seeds; set before an epoch begins.
        start: Batches to leave out, once, when iteration begins next.
        counts_passes: Whether ``epoch`` grows by itself with each pass. Loops that count iterations
            need it; validations draw the same each time.
    """

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches = batches
        # Where mmengine's DistSamplerSeedHook looks for set_epoch.
        self.sampler = getattr(batches, 'sampler', None)
        self.seed, self.rank = seed, rank
        self.epoch = 0
        self.start = 0
        self.counts_passes = False
        self._handed_out: OrderedDict[int, list[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        start, self.start, epoch = self.start, 0, self.epoch
        if self.counts_passes and hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)
        self._handed_out.clear()
        for number, indices in enumerate(self.batches):
            if number < start:
                continue
            self._handed_out[number] = list(indices)
            if len(self._handed_out) > _REMEMBERED:
                self._handed_out.popitem(last=False)
            yield SeededBatch(indices, (self.seed, self.rank, epoch, number))
        if self.counts_passes:
            self.epoch = epoch + 1

    def indices(self, number: int) -> list[int]:
        """Indices of a batch that was handed out lately, or an empty list."""
        return self._handed_out.get(number, [])


class _WorkerStart:
    """What a worker does first; then what the loader's own ``worker_init_fn`` does."""

    def __init__(self, own: Callable[[int], None] | None, progress: Any) -> None:
        self.own, self.progress = own, progress

    def __call__(self, worker_id: int) -> None:
        global _progress
        # A signal to the whole job must not take the workers from the process that has to save.
        # They end with it, or when it says so.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _progress = self.progress
        _progress[_FIELDS * worker_id] = multiprocessing.current_process().pid
        if self.own is not None:
            self.own(worker_id)


class ResumableLoader(DataLoader):
    """A ``DataLoader`` whose batches are positioned; made from one that exists, by ``of``."""

    @classmethod
    def of(cls, loader: DataLoader, seed: int, rank: int, timeout: float) -> ResumableLoader:
        """Take over the parts of ``loader``, which must not be iterated any more.

        Args:
            loader: A loader of a map-style dataset, with or without a batch sampler of its own.
            seed: Of the run, the same on all ranks.
            rank: Of this process.
            timeout: Seconds to wait for a batch, 0 for ever; a ``timeout`` that the loader has
                already stays.
        """
        end_iterator(getattr(loader, '_iterator', None))
        made = cls.__new__(cls)
        # PyTorch forbids to set a loader's sampler, for the sake of iterators that run; none does.
        vars(made).update(vars(loader))
        vars(made)['batch_sampler'] = PositionedBatches(loader.batch_sampler, seed, rank)
        made._iterator = None
        # Workers' base seeds come from here: a resumed run starts its workers once more, and the
        # global generator must not notice.
        made.generator = torch.Generator().manual_seed(seed)
        made._progress = None
        if made.num_workers > 0:
            made._progress = RawArray('q', [0, 0, IDLE] * made.num_workers)
            made.timeout = made.timeout or timeout
            made.worker_init_fn = _WorkerStart(loader.worker_init_fn, made._progress)
        restart_endless(made.batch_sampler.sampler)
        return made

    def names(self, number: int) -> list[str]:
        """What the samples of batch ``number`` are called: their files, else their indices."""
        return [self.name(index) for index in self.batch_sampler.indices(number)]

    def name(self, index: int) -> str:
        """The file of a sample as its dataset knows it, else its index."""
        found = None
        if hasattr(self.dataset, 'get_data_info'):
            record = self.dataset.get_data_info(index)
            fields = ('img_path', 'filename', 'frame_dir', 'video_path')
            found = next((record[field] for field in fields if record.get(field)), None)
        return f'sample {index}' if found is None else f'sample {index} ({found})'

    def whereabouts(self, pids: list[int]) -> str:
        """Which sample the workers ``pids`` are at; without pids, who is longest at a batch."""
        rows = [
            tuple(self._progress[_FIELDS * worker : _FIELDS * (worker + 1)])
            for worker in range(self.num_workers if self._progress is not None else 0)
        ]
        busy = sorted((row for row in rows if row[2] != IDLE), key=lambda row: row[1])
        chosen = [row for row in busy if row[0] in pids] if pids else busy[:1]
        places = []
        for pid, batch, place in chosen:
            indices = self.batch_sampler.indices(batch)
            sample = self.name(indices[place]) if place < len(indices) else f'place {place}'
            places.append(f'worker process {pid} was at {sample} of batch {batch}')
        return '; '.join(places)

    def kill_workers(self) -> None:
        """End the workers without asking: one that hangs would keep the process from ending."""
        if self._progress is None:
            return
        # PyTorch raises from its handler when a worker is killed.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pids = {self._progress[_FIELDS * worker] for worker in range(self.num_workers)}
        for child in multiprocessing.active_children():
            if child.pid in pids:
                child.kill()


def restart_endless(sampler: Any) -> None:
    """Let an endless sampler of mmengine or mmdet begin anew: its indices are one generator."""
    if hasattr(sampler, '_indices_of_rank'):
        sampler.indices = sampler._indices_of_rank()


def end_iterator(iterator: Any) -> None:
    """Stop the workers of a loader's iterator, if it has any."""
    if hasattr(iterator, '_shutdown_workers'):
        iterator._shutdown_workers()
