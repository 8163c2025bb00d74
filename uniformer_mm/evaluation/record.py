# SPDX-License-Identifier: Apache-2.0
"""What a test measured, on what and with what, as a JSON file beside its predictions."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

import uniformer_mm

from ..env.versions import REQUIREMENTS, Requirement, installed_version
from ..files import write_text
from .verdict import HEADLINES, MAX_MISSING_SHARE, TOLERANCES, of_published_length, within

FILE_NAME = 'record.json'
DEFAULT_WORK_DIR = Path('work_dirs/reproduce')
_PACKAGES = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpose', 'mmaction2',
    'mmpretrain', 'numpy', 'opencv-python', 'pillow', 'decord', 'pycocotools',
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One finished test.

    Attributes:
        row: Row id, or the name of a user's config.
        task: Key of :data:`uniformer_mm.recipes.TOOLBOXES`.
        config: Config that was run, relative to ``configs/`` where it is of this package.
        protocol: What the user chose that changes numbers, by name; empty: the official test.
        metrics: Measured, in percent, by the zoo's names, then the toolbox's further ones.
        published: The row's metrics that this test measures.
        intervals: 95 % intervals by metric, where a subset was tested.
        interval_method: How they were computed.
        listed: Samples of the whole list.
        listed_files: Images or videos of the whole list; persons of an image count once.
        published_files: Images or videos of the list of the published numbers; 0 where none were
            published.
        samples: Samples tested.
        files: Images or videos tested.
        missing: Listed files that are not there.
        limit: Size of the random subset; None for the whole list.
        seed: Which subset.
        weights: The file.
        weights_sha256: Digest of the file.
        class_order: Order of the classifier's rows, where there are two.
        config_sha256: Digest of model, data pipeline and metric.
        list_sha256: Digest of the data list.
        classes: Names of the classes.
        notes: What a reader of the numbers should know.
        versions: Versions of the packages that took part.
        device: Processor.
        date: When the test ended (UTC).
        seconds: How long it took; of an interrupted test, its last part.
    """

    row: str
    task: str
    config: str
    protocol: dict[str, str]
    metrics: dict[str, float]
    published: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    interval_method: str
    listed: int
    listed_files: int
    published_files: int
    samples: int
    files: int
    missing: int
    limit: int | None
    seed: int
    weights: str
    weights_sha256: str
    class_order: str
    config_sha256: str
    list_sha256: str
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ''
    date: str = ''
    seconds: float = 0.0

    @property
    def tolerance(self) -> float:
        """Allowed difference in percentage points."""
        return TOLERANCES[self.task]

    @property
    def whole(self) -> bool:
        """Whether the whole list was tested, a few lost files aside."""
        missing = self.missing / max(1, self.missing + self.files)
        return self.limit is None and missing <= MAX_MISSING_SHARE

    @property
    def of_published_length(self) -> bool:
        """Whether the list, without what is missing, is as long as the published one."""
        return of_published_length(self.listed_files - self.missing, self.published_files)

    @property
    def comparable(self) -> bool:
        """Whether this is the published test on the published list, as far as it can be told."""
        return bool(self.published) and self.whole and self.of_published_length

    @property
    def agrees(self) -> bool | None:
        """Whether every headline metric is within the tolerance; None where it cannot be told."""
        decisive = [name for name in self.published if name in HEADLINES]
        if not self.comparable or not set(decisive) <= set(self.metrics):
            return None
        return all(
            within(self.metrics[name], self.published[name], self.tolerance) for name in decisive
        )


def write_record(record: Record, folder: Path) -> Path:
    """Write ``record.json``, whole or not at all.

    Raises:
        ValueError: The folder cannot be written.
    """
    path = folder / FILE_NAME
    write_text(path, json.dumps(asdict(record), indent=1) + '\n')
    return path


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: The file is no record.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ValueError(
            f'{path.parent} holds no finished test ({path.name} is missing); finish it with the '
            'same uniformer-mm reproduce command.'
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f'{path} cannot be read ({error}); run the test again.') from None
    names = {item.name for item in fields(Record)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError(f'{path} is no record of this version of uniformer_mm.')
    try:
        content['intervals'] = {name: tuple(pair) for name, pair in content['intervals'].items()}
        return Record(**content)
    except (AttributeError, TypeError):
        raise ValueError(f'{path} is no record of this version of uniformer_mm.') from None


def read_records(root: Path) -> tuple[list[tuple[Path, Record]], list[str]]:
    """All records below a folder, with their folders, oldest first, and what cannot be read.

    Other programs and other versions of this one write files of the same name; each of those is a
    sentence in the second list.
    """
    found, refused = [], []
    for path in sorted(root.rglob(FILE_NAME)):
        try:
            found.append((path.parent, read_record(path)))
        except ValueError as error:
            refused.append(str(error))
    return sorted(found, key=lambda pair: pair[1].date), refused


def machine() -> dict:
    """``versions``, ``device`` and ``date`` of this process."""
    versions = {'uniformer_mm': uniformer_mm.__version__, 'python': platform.python_version()}
    known = {requirement.name: requirement for requirement in REQUIREMENTS}
    for name in _PACKAGES:
        # OpenCV has several distributions.
        version = installed_version(known.get(name, Requirement(name, '')))
        if version is not None:
            versions[name] = version
    return {
        'versions': versions,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }


def device_name(gpus: int) -> str:
    """The processors of a test."""
    if gpus:
        import torch

        return f'{gpus} x {torch.cuda.get_device_name(0)}'
    names = [line.partition(':')[2].strip() for line in _cpu_lines() if 'model name' in line]
    return f'CPU {names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def _cpu_lines() -> list[str]:
    path = Path('/proc/cpuinfo')
    return path.read_text(encoding='utf-8').splitlines() if path.exists() else []
