# SPDX-License-Identifier: Apache-2.0
"""The network: arch table, layers, blocks, the backbone of both ranks, classifiers."""

from .arch import ARCHS, Arch
from .classifier import UniFormer2dClassifier, UniFormer3dClassifier
from .factory import create_model, list_models
from .pair_heads import ClipPairHead, ImagePairHead
from .uniformer import UniFormer2d, UniFormer3d

__all__ = [
    'ARCHS',
    'Arch',
    'ClipPairHead',
    'ImagePairHead',
    'UniFormer2d',
    'UniFormer2dClassifier',
    'UniFormer3d',
    'UniFormer3dClassifier',
    'create_model',
    'list_models',
]
