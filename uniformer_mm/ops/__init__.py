# SPDX-License-Identifier: Apache-2.0
"""Operations that the framework has no fast form of: one function each, a reference beside each.

Importing this package needs neither a GPU nor Triton; ``dispatch.py`` says which implementation
runs and why another cannot.
"""

from .depthwise import depthwise_conv
from .mlp import mlp, mlp_add

__all__ = ['depthwise_conv', 'mlp', 'mlp_add']
