# SPDX-License-Identifier: Apache-2.0
"""The official video pipeline as transforms of mmaction2's results dict.

A transform is a callable ``dict -> dict``. The keys used are mmaction2's: ``imgs`` (list of
``(H, W, C)`` frames; all views of a sample one after the other), ``img_shape``, ``total_frames``,
``start_index``, ``frame_inds``, ``clip_len``, ``num_clips``.

Randomness comes from the global generators of ``random`` and ``numpy.random``, which mmengine
seeds in the main process and, differently, in each data worker.
"""

from .copies import AugmentedCopies
from .decoding import DecordDecodeOnce
from .erasing import CubeErasing
from .geometry import ClipRandomResizedCrop, ClipShortSideResize, ClipUniformCrop, RGBToBGR
from .mixing import MirrorCutmix, MirrorMixup
from .rand_augment import ClipRandAugment
from .sampling import LinspaceSampleFrames, SegmentSampleFrames

__all__ = [
    'AugmentedCopies',
    'ClipRandAugment',
    'ClipRandomResizedCrop',
    'ClipShortSideResize',
    'ClipUniformCrop',
    'CubeErasing',
    'DecordDecodeOnce',
    'LinspaceSampleFrames',
    'MirrorCutmix',
    'MirrorMixup',
    'RGBToBGR',
    'SegmentSampleFrames',
]
