# SPDX-License-Identifier: Apache-2.0
"""Writes the synthetic world: which folder, which tasks, and never anything by halves.

The world is built in a hidden folder beside its target and takes its place when complete
(``staging``). A marker file says what it holds; a folder without one is not ours and is never
touched (``marker``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import classification, detection, pose, scene, video
from .marker import MAKER, MARKER, check_present, count_files, list_digest, read_marker
from .sample import SPLITS, Task, sample_generator, write_json
from .staging import link_tree, staged

TASKS: dict[str, Task] = {
    'det': detection.TASK,
    'pose': pose.TASK,
    'seg': scene.TASK,
    'video': video.KINETICS,
    'ssv2': video.SSV2,
    'cls': classification.TASK,
}

SIZES = ('small', 'tiny')

WORLD_VERSION = 1
"""Goes up whenever the same seed would give other images or annotations."""

Progress = Callable[[str, int, int], None]
"""``(what, done, total)``, called after every sample."""


@dataclass(frozen=True)
class Outcome:
    """What ``make_data`` did.

    Attributes:
        root: The data root.
        written: Tasks that were written by this call; empty if all were there.
        marker: Content of the marker file.
    """

    root: Path
    written: tuple[str, ...]
    marker: dict[str, Any]


def make_data(
    root: str | Path,
    seed: int = 0,
    tasks: Sequence[str] = tuple(TASKS),
    size: str = 'small',
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Writes the synthetic world into ``root``, in the folders that OpenMMLab's configs expect.

    The same seed, size and library versions give the same bytes, whatever the number of workers
    and whichever tasks are asked for together. Tasks can be added to a world of the same seed
    and size; asking for what is there already does nothing.

    Args:
        root: Folder to create. It may be empty, or a world that this function made.
        seed: Any integer that is not negative.
        tasks: Some of ``TASKS``.
        size: One of ``SIZES``; ``'tiny'`` has a handful of samples, for tests.
        overwrite: Replace a world made with other parameters, or repair a damaged one.
        workers: Threads to render with; one per available core if None.
        progress: Called after every sample.

    Returns:
        What was done.

    Raises:
        ValueError: If an argument is none of the above, the folder is not ours or not writable,
            the disk lacks space, or ``overwrite`` is needed.
    """
    tasks = _check_arguments(seed, tasks, size, workers)
    root = Path(root).expanduser().resolve()
    try:
        marker = read_marker(root)
        parameters = {'version': WORLD_VERSION, 'seed': seed, 'size': size}
        present = check_present(root, marker, parameters, overwrite)
        missing = tuple(name for name in tasks if present is None or name not in present['tasks'])
        if not missing:
            return Outcome(root, (), present)
        render = partial(_write_task, seed=seed, size=size, workers=workers, progress=progress)
        return Outcome(root, missing, _build(root, present, parameters, missing, render))
    except OSError as error:
        raise ValueError(
            f'cannot write the synthetic world to {root}: {error}; give another folder'
        ) from error


def _build(
    root: Path,
    present: dict[str, Any] | None,
    parameters: dict[str, Any],
    missing: Sequence[str],
    render: Callable[[Path, str], list[Path]],
) -> dict[str, Any]:
    """Writes the missing tasks beside what is present; returns the new marker."""
    with staged(root, sum(TASKS[name].megabytes for name in missing)) as building:
        counts, lists, files = {}, [], Counter()
        if present is not None:
            link_tree(root, building)
            (building / MARKER).unlink()
            counts, files = dict(present['tasks']), Counter(present['files'])
            lists = [building / name for name in present['lists']]
        before = count_files(building)
        for name in missing:
            lists += render(building, name)
            counts[name] = TASKS[name].counts[parameters['size']]
        # Files that somebody else put beside ours stay there, and stay uncounted.
        files += count_files(building) - before
        marker = {'maker': MAKER, **parameters}
        marker['tasks'] = {name: counts[name] for name in TASKS if name in counts}
        marker['lists'] = sorted({path.relative_to(building).as_posix() for path in lists})
        marker['sha256'] = list_digest(building, marker['lists'])
        marker['files'] = dict(sorted(files.items()))
        write_json(building / MARKER, marker)
    return marker


def _check_arguments(
    seed: int, tasks: Sequence[str], size: str, workers: int | None
) -> tuple[str, ...]:
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f'seed must be an integer that is not negative; got {seed!r}')
    if isinstance(tasks, str) or not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f'tasks must be some of {", ".join(TASKS)}; got {tasks!r}')
    if size not in SIZES:
        raise ValueError(f'size must be one of {", ".join(SIZES)}; got {size!r}')
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1; got {workers!r}')
    return tuple(name for name in TASKS if name in tasks)


def _write_task(
    root: Path, name: str, seed: int, size: str, workers: int | None, progress: Progress | None
) -> list[Path]:
    """Renders both splits of a task and writes its lists; returns the paths of these."""
    task = TASKS[name]
    jobs = [(split, index) for split in SPLITS for index in range(task.counts[size][split])]

    def render(job: tuple[str, int]) -> Any:
        return task.write_sample(root, *job, sample_generator(seed, name, *job))

    records: dict[str, list[Any]] = {split: [] for split in SPLITS}
    # Threads: OpenCV and NumPy let go of the interpreter, and a forked OpenCV may hang.
    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
    try:
        rendered = zip(jobs, pool.map(render, jobs), strict=True)
        for done, ((split, _), record) in enumerate(rendered, 1):
            records[split].append(record)
            if progress is not None:
                progress(name, done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return [path for split in SPLITS for path in task.write_lists(root, split, records[split])]
