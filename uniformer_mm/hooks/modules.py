# SPDX-License-Identifier: Apache-2.0
"""What hooks share that change parts of a model before a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mmengine.hooks import Hook
from torch import nn

from ..optim.bfloat16 import find_module


class ModulesHook(Hook, ABC):
    """Change named modules before training, validation or testing begins.

    Args:
        modules: Names of modules of the model.
        **options: For :meth:`change`.

    Raises:
        ValueError: Before the run, if the model has no module of a given name.
    """

    def __init__(self, modules: Sequence[str] = ('backbone',), **options) -> None:
        self.modules = tuple(modules)
        self.options = options

    @abstractmethod
    def change(self, module: nn.Module) -> None:
        """Change one module."""

    def before_run(self, runner) -> None:
        """Change all of them.

        Raises:
            ValueError: See the class.
        """
        for module in [find_module(runner.model, name) for name in self.modules]:
            self.change(module)
