# SPDX-License-Identifier: Apache-2.0
"""Reads the catalogue's tables and refuses a malformed one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from importlib.abc import Traversable
from importlib.resources import files

from ..models.arch import ARCHS
from ..weights.zoo import Row, rows
from .recipe import (
    REMARK_KINDS,
    AlsoPublished,
    Measured,
    Protocol,
    Recipe,
    Remark,
    exact_params,
    network_of,
    task_of,
)

_COLUMNS = {
    'recipes.csv': (
        'id', 'config', 'other_configs', 'training', 'gpus', 'seed', 'params', 'flops',
        'flops_input', 'protocol',
    ),
    'protocols.csv': ('id', 'settings', 'words'),
    'measured_params.csv': ('network', 'arch', 'layer_scale', 'params'),
    'measured_macs.csv': ('network', 'arch', 'attention', 'input', 'gmacs'),
    'remarks.csv': ('rows', 'kind', 'text'),
    'also_published.csv': ('row', 'source', 'test', 'metrics'),
}  # fmt: skip
_PARAMS = re.compile(r'\d+(\.\d+)?M')
_FLOPS = re.compile(r'\d+(\.\d+)?G')
_INPUT = re.compile(r'\d+(x\d+)?')


class _Line(dict):
    """One line of a table, which knows where it stands."""

    def __init__(self, cells: dict[str, str], place: str) -> None:
        super().__init__(cells)
        self.place = place

    def require(self, column: str, good: bool, expected: str) -> str:
        """The cell; complains unless ``good``."""
        if not good:
            raise ValueError(f'{self.place}: {column}={self[column]!r}; expected {expected}.')
        return self[column]

    def number(self, column: str, kind: type = int) -> int | float:
        """The cell as a number above 0."""
        try:
            value = kind(self[column])
        except ValueError:
            value = -1
        self.require(column, value > 0, 'a number above 0')
        return value

    def one_of(self, column: str, known: Iterable[str]) -> str:
        """The cell, which must be among ``known``."""
        known = list(known)
        return self.require(column, self[column] in known, f'one of {known}')

    def pairs(self, column: str) -> dict[str, str]:
        """The cell ``name=value;name=value`` as a mapping."""
        pairs = [pair.partition('=') for pair in self[column].split(';')]
        names = {name for name, _, value in pairs if name and value}
        self.require(column, len(names) == len(pairs), 'name=value;name=value, each name once')
        return {name: value for name, _, value in pairs}

    def metrics(self, column: str) -> dict[str, float]:
        """The cell as named percentages."""
        pairs = self.pairs(column)
        try:
            return {name: float(value) for name, value in pairs.items()}
        except ValueError:
            self.require(column, False, 'numbers')
            raise


def read_catalogue(folder: Traversable | None = None) -> tuple[Recipe, ...]:
    """The recipes of the tables in ``folder`` (default: the package's), in the zoo's order.

    Raises:
        ValueError: A table is malformed, or does not fit the zoo; names file and line.
    """
    folder = folder if folder is not None else files(__package__)
    zoo = {row.id: row for row in rows()}
    lines = _keyed(folder, 'recipes.csv', 'id')
    if list(lines) != list(zoo):
        odd = sorted(set(lines) ^ set(zoo)) or 'the order'
        raise ValueError(
            f"recipes.csv: its ids must be the zoo's, in its order; they differ: {odd}."
        )
    protocols = {
        key: Protocol(key, line.pairs('settings'), line['words'])
        for key, line in _keyed(folder, 'protocols.csv', 'id').items()
    }
    measured = _measured(folder)
    remarks = _remarks(folder, zoo)
    also = _also_published(folder, zoo)
    _check_configs(lines)
    return tuple(
        _recipe(line, zoo[row_id], protocols, measured, remarks[row_id], also[row_id])
        for row_id, line in lines.items()
    )


def _recipe(
    line: _Line,
    row: Row,
    protocols: dict[str, Protocol],
    measured: dict[str, dict],
    remarks: list[Remark],
    also: list[AlsoPublished],
) -> Recipe:
    for column, pattern, example in (('params', _PARAMS, '22M'), ('flops', _FLOPS, '3.6G')):
        good = not line[column] or pattern.fullmatch(line[column])
        line.require(column, bool(good), f'a number like {example!r}, or nothing')
    line.require('flops_input', bool(_INPUT.fullmatch(line['flops_input'])), "e.g. '800x1280'")
    line.one_of('protocol', protocols)
    line.require('seed', not line['seed'] or line['seed'].isdigit(), 'a number or nothing')
    network = network_of(row.id)
    key = (network, row.arch, row.attention, line['flops_input'])
    line.require('flops_input', key in measured['macs'], f'one with {key} in measured_macs.csv')
    counts = Measured(
        network, key[-1], measured['macs'][key], exact_params(row, measured['params'])
    )
    return Recipe(
        id=row.id,
        row=row,
        config=line['config'],
        other_configs=tuple(line['other_configs'].split()),
        training=line['training'],
        gpus=line.number('gpus'),
        seed=int(line['seed']) if line['seed'] else None,
        params=line['params'],
        flops=line['flops'],
        flops_input=line['flops_input'],
        protocol=protocols[line['protocol']],
        measured=counts,
        remarks=tuple(remarks),
        also_published=tuple(also),
    )


def _check_configs(lines: dict[str, _Line]) -> None:
    """Each config belongs to one row; who trains a row trains itself."""
    owners: dict[str, str] = {}
    for row_id, line in lines.items():
        task = task_of(row_id)
        line.require('config', bool(line['config']), f'{task}/NAME.py')
        for column in ('config', 'other_configs'):
            for config in line[column].split():
                good = re.fullmatch(rf'{task}/\w+\.py', config)
                line.require(column, bool(good), f'{task}/NAME.py')
                owner = owners.setdefault(config, row_id)
                line.require(column, owner == row_id, f'a config of its own; {owner} has this one')
        trainer = lines.get(line['training'], line)
        good = not line['training'] or trainer['id'] == trainer['training']
        line.require('training', good, 'the id of a row that trains itself')


def _measured(folder: Traversable) -> dict[str, dict]:
    """Counts by key: ``params`` and ``macs``."""
    params, macs = {}, {}
    networks = ('classifier', 'backbone', 'video classifier')
    for line in _lines(folder, 'measured_params.csv'):
        key = (line.one_of('network', networks), line.one_of('arch', ARCHS), line['layer_scale'])
        line.require('arch', key not in params, 'each network once')
        params[key] = line.number('params')
    for line in _lines(folder, 'measured_macs.csv'):
        key = (line.one_of('network', networks), line.one_of('arch', ARCHS))
        key += (line['attention'], line['input'])
        line.require('input', key not in macs, 'each network and input once')
        macs[key] = line.number('gmacs', float)
    return {'params': params, 'macs': macs}


def _remarks(folder: Traversable, zoo: dict[str, Row]) -> dict[str, list[Remark]]:
    found: dict[str, list[Remark]] = {row_id: [] for row_id in zoo}
    for line in _lines(folder, 'remarks.csv'):
        remark = Remark(line.one_of('kind', REMARK_KINDS), line['text'])
        line.require('text', bool(remark.text), 'a sentence')
        matched: dict[str, None] = {}
        for pattern in line['rows'].split():
            ids = [row_id for row_id in zoo if fnmatchcase(row_id, pattern)]
            line.require('rows', bool(ids), f'patterns that match rows; {pattern!r} matches none')
            matched |= dict.fromkeys(ids)
        for row_id in matched:
            found[row_id].append(remark)
    return found


def _also_published(folder: Traversable, zoo: dict[str, Row]) -> dict[str, list[AlsoPublished]]:
    found: dict[str, list[AlsoPublished]] = {row_id: [] for row_id in zoo}
    for line in _lines(folder, 'also_published.csv'):
        line.require('row', line['row'] in zoo, "one of the zoo's ids")
        found[line['row']].append(
            AlsoPublished(line['source'], line['test'], line.metrics('metrics'))
        )
    return found


def _keyed(folder: Traversable, name: str, key: str) -> dict[str, _Line]:
    found: dict[str, _Line] = {}
    for line in _lines(folder, name):
        line.require(key, bool(line[key]) and line[key] not in found, 'each key once')
        found[line[key]] = line
    return found


def _lines(folder: Traversable, name: str) -> Iterator[_Line]:
    with folder.joinpath(name).open(encoding='utf-8', newline='') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _COLUMNS[name]:
            raise ValueError(
                f'{name}, line 1: columns {reader.fieldnames}; expected {list(_COLUMNS[name])}.'
            )
        for cells in reader:
            place = f'{name}, line {reader.line_num}'
            if None in cells or None in cells.values():
                raise ValueError(f'{place}: expected {len(_COLUMNS[name])} cells.')
            yield _Line(cells, place)
