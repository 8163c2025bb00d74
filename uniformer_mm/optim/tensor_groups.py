# SPDX-License-Identifier: Apache-2.0
"""What torch's operators on whole lists of tensors need: one device and one dtype a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor


def grouped(*lists: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Split lists of tensors, which belong together item by item, by device and dtype.

    ``torch._foreach_*`` takes mixed lists too, but then tensor by tensor.

    Args:
        *lists: Lists of one length; the first one decides.

    Yields:
        The lists of each group.
    """
    groups = defaultdict(list)
    for items in zip(*lists, strict=True):
        groups[items[0].device, items[0].dtype].append(items)
    for members in groups.values():
        yield tuple(map(list, zip(*members, strict=True)))
