# SPDX-License-Identifier: Apache-2.0
"""Every published UniFormer checkpoint as a row of a table.

``checkpoints.csv`` has one row for each published result, ``mirrors.csv`` the mirrors of their
files, ``families.csv`` what rows of one origin share. ``file_source`` says how a file's name is
known (``official code``, ``third party``, ``inferred``, ``unknown``: then the name is ours), and
md5 values were published by third parties for the files on Google Drive. Source of all facts:
the READMEs and scripts of Sense-X/UniFormer @52a0415, Westlake-AI/openmixup @37e1372, mmaction2
and mmpose.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from ...models.arch import ARCHS

SCHEME = 'uniformer://'
# Mirrors in order of preference: the authors' direct one, their Google Drive (which has download
# quotas), the toolboxes' servers, other people's copies.
_PREFERENCE = ('hf', 'drive', 'url', 'mirror', 'page')
_DATASETS = {
    'imagenet1k': (1000, None),
    'kinetics400': (400, 'kinetics400_official'),
    'kinetics600': (600, 'kinetics600_official'),
    'ssv1': (174, None),
    'ssv2': (174, None),
    'ucf101': (101, None),
    # The official configuration builds 101 outputs for the 51 classes.
    'hmdb51': (101, None),
}


@dataclass(frozen=True)
class Mirror:
    """One place that holds a file of a row.

    Attributes:
        kind: ``'hf'`` (the authors on Hugging Face), ``'mirror'`` (others there), ``'drive'``,
            ``'url'`` or ``'page'`` (to look at only).
        address: ``repo:path``, Drive id or URL.
        md5: Digest where known.
        sha256_prefix: First digits of the digest where known (OpenMMLab's file names).
        container: Top-level key of this mirror's file, where it is known to differ.
        class_order: Order of the head's rows in this mirror's file, where it differs.
        note: What is known about the mirror.
    """

    kind: str
    address: str
    md5: str = ''
    sha256_prefix: str = ''
    container: str = ''
    class_order: str = ''
    note: str = ''

    @property
    def url(self) -> str:
        """Address for a browser or a download."""
        if self.kind in ('hf', 'mirror'):
            repo, _, path = self.address.partition(':')
            return f'https://huggingface.co/{repo}/resolve/main/{path}'
        if self.kind == 'drive':
            return f'https://drive.google.com/file/d/{self.address}'
        return self.address

    @property
    def hash_text(self) -> str:
        """The known digest, in words."""
        if self.md5:
            return f'md5 {self.md5}'
        return f'sha256 {self.sha256_prefix}...' if self.sha256_prefix else 'hash not known'

    def contradicts(self, digests: dict[str, str]) -> bool:
        """Whether a file of these digests is not this mirror's."""
        wrong_md5 = self.md5 and digests['md5'] != self.md5
        return bool(wrong_md5) or not digests['sha256'].startswith(self.sha256_prefix)


@dataclass(frozen=True)
class Family:
    """What rows of one origin share; the columns of ``families.csv``."""

    family: str
    task: str
    source: str
    container: str
    container_source: str
    mean: str
    std: str
    crop_pct: str
    drive_folder: str
    log_folder: str
    baidu_code: str
    licence: str

    @property
    def normalisation(self) -> str:
        """Mean and standard deviation of pixels in 0..1, in words."""
        if not self.mean:
            return 'not settled: 0.5 / 0.5 (timm 0.4.12) or ImageNet (timm <= 0.4.5)'
        return f'{self.mean} / {self.std}'


@dataclass(frozen=True)
class Row:
    """One published checkpoint; the columns of ``checkpoints.csv`` and what follows from them."""

    id: str
    name: str
    family: Family
    dataset: str
    arch: str
    layer_scale: str
    attention: str
    frames: str
    stride: str
    size: str
    views: str
    metrics: dict[str, float]
    file: str
    file_source: str
    log: str
    exp: str
    mirrors: tuple[Mirror, ...]

    @property
    def released(self) -> bool:
        """Whether the weights were published."""
        return bool(self.file)

    @property
    def head_dim(self) -> int:
        """Channels per head that the weights were trained with."""
        return ARCHS[self.arch].head_dim

    @property
    def ndim(self) -> int:
        """3 for clips, else 2."""
        return 3 if self.frames else 2

    @property
    def scale_text(self) -> str:
        """Layer scale, in words."""
        arch = ARCHS[self.arch]
        value = self.layer_scale or arch.layer_scale
        where = 'stages 3 and 4' if arch.layer_scale_in == 'attention' else 'all blocks'
        return f'{float(value):g} in {where}' if value else 'none'

    @property
    def classes(self) -> int | None:
        """Width of the classifier; None for dense tasks."""
        return _DATASETS.get(self.dataset, (None, None))[0]

    @property
    def class_order(self) -> str | None:
        """Order of the classifier's rows in the authors' file, where it is not the data set's."""
        return _DATASETS.get(self.dataset, (None, None))[1]

    @property
    def file_names(self) -> list[str]:
        """Names under which the file may lie in a folder, the authors' first."""
        return list(dict.fromkeys([self.file, *map(self.file_at, self.mirrors)]))

    def file_at(self, mirror: Mirror) -> str:
        """The file's name at one of the mirrors."""
        if mirror.kind in ('drive', 'page'):
            return self.file
        return mirror.address.rpartition('/')[2].rpartition(':')[2]


@lru_cache(maxsize=1)
def rows() -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    families = {line['family']: Family(**line) for line in _read('families.csv')}
    by_file: dict[str, list[Mirror]] = {}
    for line in _read('mirrors.csv'):
        by_file.setdefault(line.pop('file'), []).append(Mirror(**line))
    found = []
    for line in _read('checkpoints.csv'):
        drive, md5 = line.pop('drive'), line.pop('md5')
        mirrors = list(by_file.get(line['file'], [])) if line['file'] else []
        if drive:
            mirrors.append(Mirror('drive', drive, md5=md5, note='official'))
        mirrors.sort(key=lambda mirror: _PREFERENCE.index(mirror.kind))
        line['family'] = families[line['family']]
        line['metrics'] = {
            name: float(value)
            for name, value in (metric.split('=') for metric in line['metrics'].split(';'))
        }
        found.append(Row(**line, mirrors=tuple(mirrors)))
    return tuple(found)


def find_row(name: str) -> Row:
    """The row of an id, a short name or a file name, with or without ``uniformer://``.

    Raises:
        ValueError: No such row; the message has the closest names.
    """
    name = name.removeprefix(SCHEME)
    known: dict[str, Row] = {}
    for row in rows():
        for alias in (row.id, row.name, row.file):
            if alias:
                known.setdefault(alias, row)
    known.update({row.name: row for row in rows() if row.name})
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ValueError(
            f'{name!r} is no checkpoint of the zoo'
            + (f'; did you mean one of {close}?' if close else '')
            + ' (all names: uniformer-mm zoo).'
        )
    return known[name]


def percent(value: float) -> str:
    """A metric with the digits that it was published with: one, or two."""
    return f'{value:.2f}'.removesuffix('0')


def find_by_digest(digests: dict[str, str]) -> tuple[Row, Mirror] | None:
    """The row and mirror whose file has these digests, or None."""
    for row in rows():
        for mirror in row.mirrors:
            if (mirror.md5 or mirror.sha256_prefix) and not mirror.contradicts(digests):
                return row, mirror
    return None


def _read(name: str) -> list[dict[str, str]]:
    with files(__name__).joinpath(name).open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))
