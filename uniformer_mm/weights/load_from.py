# SPDX-License-Identifier: Apache-2.0
"""``load_from='uniformer://...'``: zoo names for mmengine's own checkpoint loading.

mmengine loads whole models by their keys and only logs what does not fit, so the file is handed
over in the keys of the toolbox that its row belongs to.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from ..labels import permutation
from .evidence import gather
from .files import META_KEY, read_checkpoint
from .layouts import recognise, write_layout
from .lookup import locate
from .signature import signature_of
from .zoo import SCHEME

# Keys that the toolbox of a task expects; detectors and segmentors keep the official ones.
_TOOLBOX_LAYOUT = {
    'image classification': 'mmpretrain',
    'video classification': 'mmaction2',
    'pose estimation': 'mmpose',
}


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_zoo_checkpoint(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Read a zoo row for mmengine: ``state_dict`` in the toolbox's keys, and ``meta``.

    Kinetics heads come in mmaction2's alphabetical order of classes.

    Args:
        filename: ``uniformer://`` name.
        map_location: Device for the tensors, as in ``torch.load``.

    Returns:
        A checkpoint as mmengine expects it.

    Raises:
        CheckpointError: See :func:`~uniformer_mm.weights.lookup.locate`.
    """
    located = locate(filename)
    file = read_checkpoint(located.path, digests=located.digests)
    recognised = recognise(file.state)
    held = signature_of(recognised.state)
    evidence = gather(file, recognised, held, located)
    state, order = dict(file.state), evidence.class_order
    if order is not None:
        wanted = f'{order.rpartition("_")[0]}_alphabetical'
        rows = torch.tensor(permutation(order, wanted))
        for name in ('head.weight', 'head.bias'):
            key = recognised.file_keys[name]
            state[key] = state[key][rows]
        order = wanted
    layout = _TOOLBOX_LAYOUT.get(located.row.family.task, 'official')
    state = write_layout(state, recognised, layout)
    if isinstance(map_location, str | torch.device):
        state = {key: value.to(map_location) for key, value in state.items()}
    print_log(
        f'{filename}: {len(state)} tensors in {layout} keys, head_dim {located.row.head_dim}'
        + (f', class order {order}' if order else '')
        + f', sha256 {file.sha256[:12]}',
        logger='current',
        level=logging.INFO,
    )
    ours = {**file.our_meta, 'row': located.row.id, 'class_order': order, 'layout': layout}
    # mmengine hands _metadata down to the modules, where the backbone compares head_dim.
    prefix = next(key for key in state if 'patch_embed1.' in key).partition('patch_embed1.')[0]
    named = OrderedDict(state)
    named._metadata = {prefix.rstrip('.'): {META_KEY: {'head_dim': located.row.head_dim}}}
    return {'state_dict': named, 'meta': {**file.meta, META_KEY: ours}}
