# SPDX-License-Identifier: Apache-2.0
"""The ``init_cfg`` type by which every toolbox initialises our backbone from a checkpoint."""

from __future__ import annotations

from os import PathLike

from mmengine.model.weight_init import update_init_info
from torch import nn

from ..registry import WEIGHT_INITIALIZERS, register
from .loader import load_weights


@register(WEIGHT_INITIALIZERS)
class UniFormerPretrained:
    """Load a checkpoint into the module and account for every tensor.

    mmengine's own ``Pretrained`` unwraps one container key and logs what does not fit; this one
    reads all official layouts, inflates, and raises.

    Args:
        checkpoint: Path, or ``uniformer://`` and a name of the zoo.
        inflation: How 2-D kernels enter a 3-D network: ``'mean'`` (official) or ``'centre'``.
        prefix: What stands before the trunk's keys in the file, if it is not ``'backbone.'``.
        ema: Take the averaged weights of a training checkpoint.

    Example:
        >>> backbone = dict(
        ...     type='uniformer_mm.UniFormer2d',
        ...     arch='small',
        ...     init_cfg=dict(type='UniFormerPretrained', checkpoint='uniformer://small_in1k'),
        ... )
    """

    def __init__(
        self,
        checkpoint: str | PathLike,
        inflation: str = 'mean',
        prefix: str | None = None,
        ema: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.options = {'inflation': inflation, 'prefix': prefix, 'ema': ema}

    def __call__(self, module: nn.Module) -> None:
        """Load into ``module``: a backbone, or a model that contains exactly one.

        Raises:
            CheckpointError: See :func:`~uniformer_mm.weights.loader.load_weights`.
        """
        report = load_weights(module, self.checkpoint, **self.options)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'{type(self).__name__}: {report.source}')
