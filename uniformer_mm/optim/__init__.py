# SPDX-License-Identifier: Apache-2.0
"""Optimizer, its wrappers and their constructors, sharding, for every toolbox; none is imported."""

from .adamw import FusedAdamW
from .bfloat16 import BFloat16OptimWrapper
from .layer_decay import LayerDecayConstructor
from .sharding import (
    ShardedAmpOptimWrapper,
    ShardedBFloat16OptimWrapper,
    ShardedOptimWrapper,
    wrap_blocks,
)

__all__ = [
    'BFloat16OptimWrapper',
    'FusedAdamW',
    'LayerDecayConstructor',
    'ShardedAmpOptimWrapper',
    'ShardedBFloat16OptimWrapper',
    'ShardedOptimWrapper',
    'wrap_blocks',
]
