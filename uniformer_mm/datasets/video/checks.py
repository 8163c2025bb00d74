# SPDX-License-Identifier: Apache-2.0
"""Checks of the transforms' arguments, where they are built: a worker would fail much later.

``owner`` is the transform, whose name begins the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...checks import check_bool, is_integer, is_number, is_positive


def _refuse(owner: object, name: str, value: object, expected: str) -> None:
    raise ValueError(f'{type(owner).__name__}: {name}={value!r} must be {expected}.')


def check_flag(owner: object, name: str, value: bool) -> bool:
    """``value``, which must be a boolean."""
    return check_bool(f'{type(owner).__name__}: {name}', value)


def check_integer(
    owner: object, name: str, value: int, least: int = 1, expected: str | None = None
) -> int:
    """``value``, which must be an integer of at least ``least``; ``expected`` says so in words."""
    if not is_integer(value) or value < least:
        _refuse(owner, name, value, expected or f'an integer of at least {least}')
    return value


def check_number(owner: object, name: str, value: float, most: float = math.inf) -> float:
    """``value``, which must be a finite number from 0 to ``most``."""
    if not is_number(value) or not 0 <= value <= most:
        _refuse(owner, name, value, f'between 0 and {most}' if most < math.inf else 'at least 0')
    return value


def check_positive(owner: object, name: str, value: float) -> float:
    """``value``, which must be a finite number above 0."""
    if not is_positive(value):
        _refuse(owner, name, value, 'positive')
    return value


def check_range(
    owner: object, name: str, value: Sequence[float], most: float = math.inf
) -> tuple[float, float]:
    """The pair of ``value``, which must be rising numbers above 0 and at most ``most``."""
    pair = tuple(value) if isinstance(value, Sequence) else ()
    valid = len(pair) == 2 and all(map(is_number, pair)) and 0 < pair[0] <= pair[1] <= most
    if not valid:
        limit = f' and at most {most}' if most < math.inf else ''
        _refuse(owner, name, value, f'two rising numbers above 0{limit}')
    return pair
