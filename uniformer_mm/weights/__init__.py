# SPDX-License-Identifier: Apache-2.0
"""Weights: loading that accounts for every tensor, inflation, conversion, the zoo."""

from .convert import convert_file
from .errors import CheckpointError
from .inflate import inflate
from .initializer import UniFormerPretrained
from .load_from import load_zoo_checkpoint
from .loader import LoadReport, load_weights

__all__ = [
    'CheckpointError',
    'LoadReport',
    'UniFormerPretrained',
    'convert_file',
    'inflate',
    'load_weights',
    'load_zoo_checkpoint',
]
