# SPDX-License-Identifier: Apache-2.0
"""Operations that PyTorch has no fast form of, and a reference beside them.

``torch/`` holds the form that runs everywhere, ``triton/`` the kernels; ``dispatch.py`` says which
runs and why another cannot. Importing this package needs neither a GPU nor Triton.
"""

from .depthwise import depthwise_conv

__all__ = ['depthwise_conv']
