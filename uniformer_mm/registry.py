# SPDX-License-Identifier: Apache-2.0
"""The registry scope ``uniformer_mm``, a child of mmengine's root beside every toolbox.

mmengine resolves ``type='uniformer_mm.UniFormer2d'`` from any toolbox's scope by importing this
module and asking the child of that name, so configs need no ``custom_imports``. Every class is
registered in the root as well: plain ``type='UniFormer2d'`` works in all scopes once
``uniformer_mm`` is imported. No toolbox is imported here or anywhere else in the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mmengine import registry as root
from mmengine.registry import Registry

SCOPE = 'uniformer_mm'

T = TypeVar('T')


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child(
    root.MODELS, 'uniformer_mm.models', 'uniformer_mm.datasets', 'uniformer_mm.evaluation'
)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'uniformer_mm.weights')
TRANSFORMS = _child(root.TRANSFORMS, 'uniformer_mm.datasets', 'uniformer_mm.evaluation')
HOOKS = _child(root.HOOKS, 'uniformer_mm.hooks', 'uniformer_mm.reliability')
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, 'uniformer_mm.hooks')
OPTIMIZERS = _child(root.OPTIMIZERS, 'uniformer_mm.optim')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'uniformer_mm.optim')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'uniformer_mm.optim')
FUNCTIONS = _child(root.FUNCTIONS, 'uniformer_mm.optim')
STRATEGIES = _child(root.STRATEGIES, 'uniformer_mm.optim.strategy')
LOOPS = _child(root.LOOPS, 'uniformer_mm.evaluation')
METRICS = _child(root.METRICS, 'uniformer_mm.evaluation', 'uniformer_mm.submission.label_maps')


def register(registry: Registry) -> Callable[[type[T]], type[T]]:
    """Class decorator: registers in ``registry`` (scope ``uniformer_mm``) and in its root.

    Args:
        registry: One of this module's child registries.

    Returns:
        The decorator, which hands the class back unchanged.

    Raises:
        KeyError: From mmengine, if the name is taken in either registry.
    """

    def decorate(cls: type[T]) -> type[T]:
        registry.register_module(module=cls)
        registry.parent.register_module(module=cls)
        return cls

    return decorate
