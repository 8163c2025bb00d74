# SPDX-License-Identifier: Apache-2.0
"""Named modules that compute in float32 whatever runs autocast around them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from mmengine.hooks import Hook

from ..optim.bfloat16 import computing_in_float32, find_module
from ..registry import HOOKS, register


@register(HOOKS)
class Float32ModulesHook(Hook):
    """Keep modules in float32 during training where the runner's strategy brings the autocast.

    For DeepSpeed, whose optimizer wrapper cannot do what ``BFloat16OptimWrapper(float32_modules=
    ...)`` does; that class says which modules each toolbox needs.

    Args:
        modules: Names of modules of the model.

    Raises:
        ValueError: Before training, if the model has no module of a given name.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        self._kept = ExitStack()

    def before_train(self, runner) -> None:
        """Convert the modules.

        Raises:
            ValueError: See the class.
        """
        device = next(runner.model.parameters()).device.type
        found = [find_module(runner.model, name) for name in self.modules]
        self._kept.enter_context(computing_in_float32(found, device))

    def after_train(self, runner) -> None:
        """Let them compute as they did before."""
        self._kept.close()
