# SPDX-License-Identifier: Apache-2.0
"""Import a module of ours as soon as one of another package has been imported.

mmengine finds plain ``type='UniFormer2d'`` only if somebody has told its registries, but telling
them at ``import uniformer_mm`` would import mmengine, whoever needs it or not. So we wait for it:
Python asks the finders of ``sys.meta_path`` for each new module, and ours lets the others find the
awaited one and adds our module to its loading.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(awaited: str, ours: str) -> None:
    """Import ``ours`` right after ``awaited``, now if that is imported already.

    Args:
        awaited: Full name of a module in another package.
        ours: Full name of the module to import then. It may import ``awaited`` and what that
            imports; packages around ``awaited`` may still be loading.
    """
    module = sys.modules.get(awaited)
    if module is None:
        sys.meta_path.insert(0, _Waiting(awaited, ours))
    else:
        import_module(ours)


class _Waiting(MetaPathFinder):
    """Finder of one module, which it leaves to the other finders to find."""

    def __init__(self, awaited: str, ours: str) -> None:
        self.awaited = awaited
        self.ours = ours

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.awaited:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.ours)
        return spec


class _Loader(Loader):
    """The module's own loader, and our import after it."""

    def __init__(self, loader: Loader, ours: str) -> None:
        self.loader = loader
        self.ours = ours

    def __getattr__(self, name: str) -> object:
        # Data files, source lines of tracebacks: the loader's own business.
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.__spec__.loader = module.__loader__ = self.loader
        import_module(self.ours)
