# SPDX-License-Identifier: Apache-2.0
"""The embedded synthetic world: small data sets that all five toolboxes read as the real ones."""

from .chance import CHANCE_RULES, chance_level
from .marker import MARKER
from .world import SIZES, TASKS, Outcome, make_data

__all__ = [
    'CHANCE_RULES',
    'MARKER',
    'SIZES',
    'TASKS',
    'Outcome',
    'chance_level',
    'make_data',
]
