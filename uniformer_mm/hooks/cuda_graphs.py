# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs for parts of a model, from a config."""

from __future__ import annotations

from torch import nn

from ..models.cuda_graphs import use_cuda_graphs
from ..registry import HOOKS, register
from .modules import ModulesHook


@register(HOOKS)
class CudaGraphHook(ModulesHook):
    """Record the passes of named modules as CUDA graphs and replay them.

    For recipes whose batches have one size (classification, crops, pose, clips): the host starts a
    pass in one call. See :func:`~uniformer_mm.models.cuda_graphs.use_cuda_graphs`; on a CPU nothing
    changes.

    Args:
        modules: Names of modules of the model, each with one tensor as its input.
        **options: Its arguments, such as ``warmup`` or ``max_shapes``.

    Raises:
        ValueError: Before the run, if the model has no module of a given name, or one that cannot
            be recorded.
    """

    def change(self, module: nn.Module) -> None:
        """Switch recording on for one module."""
        use_cuda_graphs(module, **self.options)
