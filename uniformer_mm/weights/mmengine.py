# SPDX-License-Identifier: Apache-2.0
"""What mmengine calls: ``init_cfg=dict(type='UniFormerPretrained')``, ``load_from='uniformer://'``.

mmengine loads whole models by their keys and only logs what does not fit, so a zoo name's file is
handed over in the keys of the toolbox that its row belongs to.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from os import PathLike

import torch
from mmengine.logging import print_log
from mmengine.model.weight_init import update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..labels import permutation
from ..models.state_dict import META_KEY
from ..registry import WEIGHT_INITIALIZERS, register
from .identify import identify
from .key_schemes import write_scheme
from .loader import load_weights
from .zoo import SCHEME

# Keys that the toolbox of a task expects; detectors and segmentors keep the official ones.
_TOOLBOX_SCHEME = {
    'image classification': 'mmpretrain',
    'video classification': 'mmaction2',
    'pose estimation': 'mmpose',
}


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


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_zoo_checkpoint(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Read a zoo row for mmengine: ``state_dict`` in the toolbox's keys, and ``meta``.

    Kinetics heads come in mmaction2's alphabetical class order.

    Args:
        filename: ``uniformer://`` name.
        map_location: Device for the tensors, as in ``torch.load``.

    Returns:
        A checkpoint as mmengine expects it.

    Raises:
        CheckpointError: See :func:`~uniformer_mm.weights.resolve.resolve_file`.
    """
    found = identify(filename)
    file, detected, row = found.file, found.detected, found.resolved.row
    state, order = dict(file.state), found.provenance.class_order
    if order is not None:
        wanted = f'{order.rpartition("_")[0]}_alphabetical'
        rows = torch.tensor(permutation(order, wanted))
        for name in ('head.weight', 'head.bias'):
            key = detected.file_keys[name]
            state[key] = state[key][rows]
        order = wanted
    scheme = _TOOLBOX_SCHEME.get(row.family.task, 'official')
    state = write_scheme(state, detected, scheme)
    if isinstance(map_location, str | torch.device):
        state = {key: value.to(map_location) for key, value in state.items()}
    print_log(
        f'{filename}: {len(state)} tensors in {scheme} keys, head_dim {row.head_dim}'
        + (f', class order {order}' if order else '')
        + f', sha256 {file.sha256[:12]}',
        logger='current',
        level=logging.INFO,
    )
    ours = {**file.our_meta, 'row': row.id, 'class_order': order, 'layout': scheme}
    # mmengine hands _metadata down to the modules, where the backbone compares head_dim.
    prefix = next(key for key in state if 'patch_embed1.' in key).partition('patch_embed1.')[0]
    named = OrderedDict(state)
    named._metadata = {prefix.rstrip('.'): {META_KEY: {'head_dim': row.head_dim}}}
    return {'state_dict': named, 'meta': {**file.meta, META_KEY: ours}}
