# SPDX-License-Identifier: Apache-2.0
"""Norms: BatchNorm in convolution blocks, LayerNorm everywhere else.

Source: Sense-X/UniFormer @52a0415 ``image_classification/models/uniformer.py`` (``norm_layer`` with
eps 1e-6 in the blocks; patch embeddings build ``nn.LayerNorm`` with its own default).
"""

from __future__ import annotations

from torch import nn

BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
BLOCK_NORM_EPS = 1e-6
PATCH_NORM_EPS = 1e-5


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm of whatever package: it counts batches."""
    return 'running_mean' in module._buffers and hasattr(module, 'num_batches_tracked')
