# SPDX-License-Identifier: Apache-2.0
"""The layers that UniFormer is made of: plain modules of PyTorch, for images and clips.

Maps are ``(B, C, *S)`` with ``S`` the axes ``H W`` or ``T H W``, held in channels-last memory;
tokens are ``(B, N, C)``, a view of the same memory. ``ndim`` is the number of axes of ``S``.
Nothing here asks what another module is, or where it runs.
"""

from .attention import Attention
from .conv import CONV, depthwise, extent, pointwise
from .drop_path import DropPath, drop_path_rates
from .init import init_weights, residual_scale
from .mlp import Mlp
from .norm import BATCH_NORM, BLOCK_NORM_EPS, PATCH_NORM_EPS, is_batch_norm
from .patch_embed import ConvEmbed, PatchEmbed, build_downsample, build_stem
from .tokens import map_to_frames, map_to_pixels, pixels_to_frames, to_map, to_tokens
from .windows import join_windows, split_windows

__all__ = [
    'BATCH_NORM',
    'BLOCK_NORM_EPS',
    'CONV',
    'PATCH_NORM_EPS',
    'Attention',
    'ConvEmbed',
    'DropPath',
    'Mlp',
    'PatchEmbed',
    'build_downsample',
    'build_stem',
    'depthwise',
    'drop_path_rates',
    'extent',
    'init_weights',
    'is_batch_norm',
    'join_windows',
    'map_to_frames',
    'map_to_pixels',
    'pixels_to_frames',
    'pointwise',
    'residual_scale',
    'split_windows',
    'to_map',
    'to_tokens',
]
