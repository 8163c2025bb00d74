# SPDX-License-Identifier: Apache-2.0
"""torch.compile for parts of a model, from a config."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook

from ..optim.bfloat16 import find_module
from ..registry import HOOKS, register


@register(HOOKS)
class CompileHook(Hook):
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
        self.modules = tuple(modules)
        self.options = {'fullgraph': True, **options}

    def before_run(self, runner) -> None:
        """Compile.

        Raises:
            ValueError: See the class.
        """
        for module in [find_module(runner.model, name) for name in self.modules]:
            module.compile(**self.options)
