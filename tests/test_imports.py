# SPDX-License-Identifier: Apache-2.0
"""Imports go one way: a room of the package imports the rooms before it, and there is no circle.

The rule is read from the source, so imports inside functions count as well.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import uniformer_mm

ROOT = Path(uniformer_mm.__file__).parent
PACKAGE = uniformer_mm.__name__

# Each room may import those of earlier lines, and those of its own line only if they are itself. A
# dotted name is one module of a room that stands apart from the rest of it.
ORDER = [
    ['after_import', 'checks', 'errors', 'files', 'lazy'],
    ['console', 'labels', 'registry', 'env.versions'],
    ['synth', 'datasets'],
    ['ops'],
    ['layers'],
    ['fast'],
    ['models'],
    ['weights', 'optim', 'flops'],
    ['create', 'recipes'],
    ['evaluation'],
    ['submission', 'inference'],
    ['hooks', 'reliability', 'env'],
    ['cli'],
    ['__main__'],
]
PLACES = {room: place for place, rooms in enumerate(ORDER) for room in rooms}

# Who knows of the fast forms within the network: the blocks, which ask the one door, and the
# network for inference alone, which is folded by the same function.
KNOW_FAST = {'models.blocks', 'models.folded'}


def module_name(path: Path) -> str:
    """``models.blocks`` of ``uniformer_mm/models/blocks.py``; the empty name is the package's."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {
    module_name(path): path for path in sorted(ROOT.rglob('*.py')) if '.mim' not in path.parts
}


def imported(name: str, path: Path, modules: set[str], text: str | None = None) -> set[str]:
    """Names, relative to the package, of the modules of ``modules`` that a module imports."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8') if text is None else text)):
        if isinstance(node, ast.Import):
            found |= {_inside(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package.split('.') if package else []
                parents = parents[: len(parents) - node.level + 1]
                base = '.'.join([PACKAGE, *parents, *([base] if base else [])])
            # `from .. import fast` names a module, `from ..fast import why_not` what is in one.
            inner = {_inside(f'{base}.{alias.name}') for alias in node.names}
            found |= inner if inner <= modules else (inner & modules) | {_inside(base)}
    return (found & modules) - {name}


def _inside(name: str) -> str | None:
    """A name relative to the package; None outside of it."""
    return name.partition('.')[2] if name.partition('.')[0] == PACKAGE else None


def place(name: str) -> tuple[int, str]:
    """Where a module stands in ORDER, and its room."""
    room = name if name in PLACES else name.partition('.')[0]
    if room not in PLACES:
        pytest.fail(f'{room} has no place in ORDER of {Path(__file__).name}; give it one.')
    return PLACES[room], room


def upward(name: str, targets: set[str]) -> list[str]:
    """What a module imports that stands after it, or beside it in another room."""
    own_place, own_room = place(name)
    found = []
    # The package itself (its version) imports nothing that could lead back.
    for target in sorted(targets - {''}):
        other_place, other_room = place(target)
        if other_place > own_place or (other_place == own_place and other_room != own_room):
            found.append(target)
    return found


GRAPH = {name: imported(name, path, set(MODULES)) for name, path in MODULES.items()}


def test_no_module_imports_upward() -> None:
    found = {name: upward(name, targets) for name, targets in GRAPH.items() if name}
    assert {name: targets for name, targets in found.items() if targets} == {}


def test_there_is_no_circle() -> None:
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f'modules import each other: {" -> ".join(error.args[1])}')


def test_only_the_blocks_know_the_fast_forms() -> None:
    asking = {name for name, targets in GRAPH.items() if any(_is_fast(t) for t in targets)}
    assert {name for name in asking if name.startswith('models')} <= KNOW_FAST


def test_the_package_itself_imports_what_costs_nothing() -> None:
    assert GRAPH[''] <= set(ORDER[0])


def _is_fast(name: str) -> bool:
    return name == 'fast' or name.startswith('fast.')


@pytest.mark.parametrize(
    ('name', 'text', 'wrong'),
    [
        ('models.blocks', 'from .. import fast', []),
        ('models.blocks', 'from ..weights.zoo import rows', ['weights.zoo']),
        ('models.blocks', 'def f():\n    from ..weights import loader',
         ['weights.loader']),
        ('ops.mlp', 'import uniformer_mm.layers', ['layers']),
        ('fast.cpu', 'from uniformer_mm import models', ['models']),
        ('recipes.cli', 'from ..hooks.ema import TrackedEMAHook', ['hooks.ema']),
        ('recipes.cli', 'from ..weights.zoo import rows\nfrom .catalogue import recipes', []),
    ],
)  # fmt: skip
def test_the_rule_finds_what_breaks_it(name: str, text: str, wrong: list[str]) -> None:
    modules = set(MODULES) | {name, 'models', 'weights', 'weights.zoo', 'layers'}
    found = imported(name, ROOT / f'{name.replace(".", "/")}.py', modules, text)
    assert found
    assert upward(name, found) == wrong
