# SPDX-License-Identifier: Apache-2.0
"""Types are known to mmengine's root in either order of imports, and cost nothing until asked for.

Each case gets a fresh interpreter: what one import has registered cannot be taken back.
"""

from __future__ import annotations

import pytest

from .test_scopes import run_python

PROBE = """
import sys
for name in ('UniFormer2d', 'ClipPairHead', 'MirrorMixup'):
    cls = root.MODELS.get(name)
    assert cls.__name__ == name and cls is root.MODELS.get('uniformer_mm.' + name), name
assert root.MODELS.get('UniFormer2d') is uniformer_mm.UniFormer2d
assert root.HOOKS.get('CompileHook').__module__ == 'uniformer_mm.hooks.compile'
toolbox = root.Registry('model', parent=root.MODELS, scope='toolbox')
assert toolbox.get('UniFormer3d') is uniformer_mm.UniFormer3d
import mmengine.runner
loader = mmengine.runner.CheckpointLoader._get_checkpoint_loader('uniformer://small_in1k')
assert loader.__name__ == 'load_zoo_checkpoint', loader
"""


@pytest.mark.parametrize(
    'first',
    [
        'import uniformer_mm\nimport mmengine.registry as root\n',
        'import mmengine.registry as root\nimport uniformer_mm\n',
        'import mmengine.runner\nimport mmengine.registry as root\nimport uniformer_mm\n',
    ],
    ids=['before mmengine', 'after its registries', 'after its runner'],
)
def test_plain_types_and_zoo_names_in_any_order_of_imports(first: str) -> None:
    unasked = '' if 'runner' in first else "import sys; assert 'torch' not in sys.modules\n"
    run_python(first + unasked + PROBE)


def test_a_module_of_ours_that_is_imported_by_itself_registers_once() -> None:
    run_python(
        'import uniformer_mm.models.classifier as module\n'
        'from mmengine.registry import MODELS\n'
        "assert MODELS.get('UniFormer2dClassifier') is module.UniFormer2dClassifier\n"
        "assert MODELS.get('uniformer_mm.UniFormer2dClassifier') is module.UniFormer2dClassifier"
    )


def test_the_table_of_types_holds_what_the_modules_register() -> None:
    program = """
import importlib, pkgutil
import uniformer_mm
from uniformer_mm import registry
for module in pkgutil.walk_packages(uniformer_mm.__path__, 'uniformer_mm.'):
    # Repairs run, and counters of operations ask for the tools that they teach.
    if not any(part in module.name for part in ('repairs', '__main__', 'flops.for_', '.triton')):
        importlib.import_module(module.name)
for name, modules in registry._TYPES.items():
    registered = getattr(registry, name).module_dict
    listed = {t: f'uniformer_mm.{m}' for m, types in modules.items() for t in types}
    assert listed == {t: o.__module__ for t, o in registered.items()}, name
"""
    run_python(program)


def test_the_awaited_module_keeps_its_own_loader() -> None:
    run_python(
        'import inspect, sys, uniformer_mm, mmengine.registry as root\n'
        'from importlib.machinery import SourceFileLoader\n'
        'assert type(root.__loader__) is type(root.__spec__.loader) is SourceFileLoader\n'
        "assert 'Registry' in inspect.getsource(root)\n"
        "assert not any(getattr(f, 'awaited', '') == root.__name__ for f in sys.meta_path)"
    )
