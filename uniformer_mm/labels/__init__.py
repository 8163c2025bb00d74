# SPDX-License-Identifier: Apache-2.0
"""Class orders: of the official Kinetics weights, and the alphabetical one of OpenMMLab.

The official lists are not alphabetical (0 = riding a bike in Kinetics-400); their logits scored
against alphabetical labels give about 0 %. mmaction2 permuted the rows of the head instead.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# Order name: (file of the official order, sorted or as listed).
_ORDERS = {
    'kinetics400_official': ('kinetics400_official.txt', False),
    'kinetics400_alphabetical': ('kinetics400_official.txt', True),
    'kinetics600_official': ('kinetics600_official.txt', False),
    'kinetics600_alphabetical': ('kinetics600_official.txt', True),
}
CLASS_ORDERS = tuple(_ORDERS)


@cache
def class_names(order: str) -> tuple[str, ...]:
    """Class names in an order.

    Args:
        order: One of :data:`CLASS_ORDERS`.

    Returns:
        Names by class id. Kinetics-600 names are the authors' file names (underscores).

    Raises:
        ValueError: An unknown order.
    """
    if order not in _ORDERS:
        raise ValueError(f'class_order={order!r} is not known; use one of {CLASS_ORDERS}.')
    file, alphabetical = _ORDERS[order]
    names = files(__name__).joinpath(file).read_text(encoding='utf-8').split('\n')
    names = [name for name in names if name]
    return tuple(sorted(names) if alphabetical else names)


def permutation(source: str, target: str) -> list[int]:
    """Which row of ``source`` belongs into each row of ``target``.

    Args:
        source: Order that the rows are in.
        target: Order of the same data set that they shall be in.

    Returns:
        Indices such that ``rows[indices]`` is in the target order.

    Raises:
        ValueError: An unknown order, or orders of two data sets.
    """
    have, want = class_names(source), class_names(target)
    if sorted(have) != sorted(want):
        raise ValueError(f'{source} and {target} are orders of different classes.')
    position = {name: index for index, name in enumerate(have)}
    return [position[name] for name in want]
