# SPDX-License-Identifier: Apache-2.0
"""The network: arch table, layers, blocks, the backbone of both ranks, classifiers.

The names import their module when they are first used, so that the arch table can be read without
PyTorch.
"""

from ..lazy import lazy_names

_NAMES = {
    'ARCHS': '.arch',
    'Arch': '.arch',
    'ClipPairHead': '.heads',
    'ImagePairHead': '.heads',
    'UniFormer2d': '.uniformer',
    'UniFormer2dClassifier': '.classifier',
    'UniFormer3d': '.uniformer',
    'UniFormer3dClassifier': '.classifier',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
