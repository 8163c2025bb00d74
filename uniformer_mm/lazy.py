# SPDX-License-Identifier: Apache-2.0
"""Names of a package that import their module when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's ``__getattr__``, ``__dir__`` and ``__all__``.

    Args:
        package: The package's ``__name__``.
        homes: Public name: the module that defines it, relative to the package (``.blocks``).
            No name may be a module's own: the import would put the module in its place.

    Returns:
        What the package assigns to ``__getattr__``, ``__dir__`` and ``__all__``.

    Example:
        >>> __getattr__, __dir__, __all__ = lazy_names(__name__, {'Arch': '.arch'})
    """

    def resolve(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return resolve, names, sorted(homes)
