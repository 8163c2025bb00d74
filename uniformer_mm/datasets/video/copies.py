# SPDX-License-Identifier: Apache-2.0
"""Several augmented copies of one decoded clip."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from mmengine.dataset import Compose

from ...registry import TRANSFORMS, register
from .checks import check_integer


@register(TRANSFORMS)
class AugmentedCopies:
    """Ends a pipeline with ``num_copies`` independently augmented copies of the decoded clip.

    The frames are decoded once; each copy then goes through ``transforms`` on its own. The sample
    becomes a list, which ``collate_fn=dict(type='repeat_pseudo_collate')`` of mmaction2 flattens
    to ``video 0, video 0, video 1, video 1, ...``: the batch is ``num_copies`` times as large as
    the dataloader says. It does what mmaction2's ``RepeatAugDataset(sample_once=True)`` does, but
    for frame folders too and without decoding the clip once per copy.

    Source: Sense-X/UniFormer @52a0415, ``AUG.NUM_SAMPLE`` in ``kinetics.py`` and ``sth.py``; Hoffer
    et al., arXiv 1901.09335.

    Args:
        num_copies: Copies of each clip.
        transforms: The rest of the pipeline, packing included.

    Raises:
        ValueError: ``num_copies`` below one.
    """

    def __init__(self, num_copies: int, transforms: Sequence[dict | Callable]) -> None:
        self.num_copies = check_integer(self, 'num_copies', num_copies)
        self.transforms = Compose(transforms)

    def __call__(self, results: dict) -> list[dict]:
        """Augment and pack each copy."""
        return [self.transforms(copy.deepcopy(results)) for _ in range(self.num_copies)]

    def __repr__(self) -> str:
        return f'AugmentedCopies(num_copies={self.num_copies}, transforms={self.transforms!r})'
