# SPDX-License-Identifier: Apache-2.0
"""torch.compile for parts of a model, from a config."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..fast.compile import compile as compile_network
from ..registry import HOOKS, register
from .modules import ModulesHook


@register(HOOKS)
class CompileHook(ModulesHook):
    """Compile named modules before training, validation or testing begins.

    mmengine's own ``compile`` setting compiles a method of the whole model, which breaks into many
    graphs at the toolboxes' heads; the backbone is one graph. Modules are compiled in place: the
    keys of the state dict, checkpoints and wrappers stay as they are. The first step takes minutes
    on a full network; sizes that change from image to image compile once more, as symbols.

    Args:
        modules: Names of modules of the model.
        **options: Arguments of ``torch.compile``, such as ``mode`` or ``dynamic``. ``fullgraph``
            is True if not given, so that a break is an error and not a slow run.

    Raises:
        ValueError: Before the run, if the model has no module of a given name.
    """

    def __init__(self, modules: Sequence[str] = ('backbone',), **options) -> None:
        super().__init__(modules, **{'fullgraph': True, **options})

    def change(self, module: nn.Module) -> None:
        """Compile one module."""
        compile_network(module, **self.options)
