# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth, arXiv 1603.09382."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Set samples to zero with probability ``rate`` and scale the others by ``1 / (1 - rate)``."""
    keep = 1 - rate
    factors = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
    return x * (factors / keep)


# A tracer records the call: its own values have no number of axes.
torch.fx.wrap('drop_path')


class DropPath(nn.Module):
    """Drops the branch of whole samples in training and rescales those that stay.

    Args:
        rate: Probability of dropping, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, ...) -> (B, ...)``; identity in evaluation."""
        return drop_path(x, self.rate) if self.training and self.rate else x

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f'rate={self.rate:.3f}'


def drop_path_rates(depths: tuple[int, ...], rate: float) -> list[list[float]]:
    """Linearly rising rates, 0 to ``rate``, over all blocks of all stages in order."""
    total = sum(depths)
    flat = [rate * i / max(total - 1, 1) for i in range(total)]
    starts = [sum(depths[:s]) for s in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]
