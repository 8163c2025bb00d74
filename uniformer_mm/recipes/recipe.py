# SPDX-License-Identifier: Apache-2.0
"""What the catalogue knows about a published result."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.arch import ARCHS
from ..weights.zoo import SCHEME, Row

TOOLBOXES = {
    'cls': 'mmpretrain',
    'det': 'mmdet',
    'seg': 'mmseg',
    'pose': 'mmpose',
    'video': 'mmaction2',
}
"""Tasks, which are also the folders of configs, and the toolbox's name for mim."""

REMARK_KINDS = {
    'flops': 'published FLOPs are wrong or count something else',
    'metric': 'published metrics',
    'weights': 'released weights',
    'training': 'official training',
    'test': 'official test',
    'note': 'note',
}
"""What a remark is about."""

_MEASURED_CLASSES = 400


@dataclass(frozen=True)
class Protocol:
    """How a result is tested.

    What differs from row to row stands in the zoo: ``size``, ``views`` (clips x crops), ``stride``,
    and in its family ``mean``, ``std`` and ``crop_pct``.

    Attributes:
        id: Key of the table.
        settings: Named values, for programs.
        words: The same for people.
    """

    id: str
    settings: dict[str, str]
    words: str


@dataclass(frozen=True)
class Measured:
    """What the official network counts on torch's meta device.

    Attributes:
        network: ``'classifier'`` (with its head, and the dense one of token labelling),
            ``'backbone'`` (four maps, each with its norm) or ``'video classifier'``.
        input: Pixels of one side, height x width, or frames x pixels of one view.
        gmacs: Multiply-adds / 1e9 of one input (one view); convolutions, linear layers and
            attention matmuls.
        params: Parameters, with the row's number of classes; None where nobody counted them.
    """

    network: str
    input: str
    gmacs: float
    params: int | None


@dataclass(frozen=True)
class Remark:
    """Something to know about rows; ``kind`` is one of :data:`REMARK_KINDS`."""

    kind: str
    text: str


@dataclass(frozen=True)
class AlsoPublished:
    """Another number that somebody published for the weights of a row."""

    source: str
    test: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """One published result.

    Attributes:
        id: Row id, the zoo's.
        row: The zoo's row: arch, attention, data set, input, published metrics, weights.
        config: Config relative to ``configs/``.
        other_configs: More configs that test the same weights in another way.
        training: Id of the recipe whose config trains these weights, usually its own; empty where
            no config trains them yet.
        gpus: GPUs of the published training; with the config's batch size, the effective batch.
        seed: Seed of the published training, where one is known.
        params: Parameters as published (``'22M'``), or empty.
        flops: FLOPs as published (``'3.6G'``, multiply-adds of all views), or empty.
        flops_input: Input of the FLOPs, as in :class:`Measured`.
        protocol: How the published metrics were tested.
        measured: Counts of the official network.
        remarks: What to know.
        also_published: Other published numbers of these weights.
    """

    id: str
    row: Row
    config: str
    other_configs: tuple[str, ...]
    training: str
    gpus: int
    seed: int | None
    params: str
    flops: str
    flops_input: str
    protocol: Protocol
    measured: Measured
    remarks: tuple[Remark, ...]
    also_published: tuple[AlsoPublished, ...]

    @property
    def task(self) -> str:
        """``'cls'``, ``'det'``, ``'seg'``, ``'pose'`` or ``'video'``."""
        return task_of(self.id)

    @property
    def toolbox(self) -> str:
        """Name of the toolbox for mim."""
        return TOOLBOXES[self.task]

    @property
    def arch(self) -> str:
        """Name in the table of archs."""
        return self.row.arch

    @property
    def metrics(self) -> dict[str, float]:
        """Published metrics: percentages, named as in the zoo."""
        return self.row.metrics

    @property
    def weights(self) -> str:
        """Address of the published weights (``uniformer://...``), or empty if never released."""
        return f'{SCHEME}{self.row.name or self.id}' if self.row.released else ''

    @property
    def flops_are_wrong(self) -> bool:
        """Whether a remark says that the published FLOPs are not those of this network."""
        return any(remark.kind == 'flops' for remark in self.remarks)

    @property
    def configs(self) -> tuple[str, ...]:
        """All configs of this recipe, relative to ``configs/``."""
        return (self.config, *self.other_configs)


def task_of(row_id: str) -> str:
    """Task of a row id."""
    family = row_id.partition('/')[0]
    return {'cls_tl': 'cls', 'om': 'cls', 'vid': 'video'}.get(family, family)


def network_of(row_id: str) -> str:
    """What :class:`Measured` counts for a row."""
    named = {'cls': 'classifier', 'video': 'video classifier'}
    return named.get(task_of(row_id), 'backbone')


def exact_params(row: Row, counted: dict[tuple[str, str, str], int]) -> int | None:
    """Parameters of the network that :func:`network_of` names, with the row's classes.

    Args:
        row: A row of the zoo.
        counted: Parameters by network, arch and layer scale; video classifiers with 400 classes.
    """
    network = network_of(row.id)
    if network == 'classifier':
        # The archs' counts hold with the archs' own layer scale only.
        return None if row.layer_scale else ARCHS[row.arch].params
    params = counted.get((network, row.arch, row.layer_scale))
    if params is not None and network == 'video classifier':
        params += (row.classes - _MEASURED_CLASSES) * (ARCHS[row.arch].dims[-1] + 1)
    return params
