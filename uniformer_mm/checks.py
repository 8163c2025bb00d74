# SPDX-License-Identifier: Apache-2.0
"""What kind of value a user gave: Python takes True for 1, and any text for true."""

from __future__ import annotations

import math
from numbers import Real


def is_integer(value: object) -> bool:
    """Whether ``value`` is an integer; True and False, which Python counts as 1 and 0, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number, of NumPy too; strings and booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> bool:
    """Whether ``value`` is a finite number above 0."""
    return is_number(value) and value > 0


def check_bool(name: str, value: bool) -> bool:
    """``value``, which must be a boolean: any other would count as one without a word."""
    if not isinstance(value, bool):
        raise ValueError(f'{name}={value!r} must be True or False; write it without quotes.')
    return value
