# SPDX-License-Identifier: Apache-2.0
"""Weights: loading that accounts for every tensor, inflation, conversion, the zoo.

The names import their module when they are first used, so that the zoo can be read without PyTorch.
"""

from ..lazy import lazy_names

_NAMES = {
    'CheckpointError': '..errors',
    'LoadReport': '.loader',
    'UniFormerPretrained': '.mmengine',
    'convert_file': '.convert',
    'inflate': '.inflation',
    'load_weights': '.loader',
    'load_zoo_checkpoint': '.mmengine',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
