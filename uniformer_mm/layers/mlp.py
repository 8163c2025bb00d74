# SPDX-License-Identifier: Apache-2.0
"""The MLP of a block."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """Two pointwise layers with an exact (erf) GELU between them.

    Args:
        fc1: First layer, C to hidden.
        fc2: Second layer, hidden to C.
    """

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1 = fc1
        self.act = nn.GELU()
        self.fc2 = fc2

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(B, C, *S) -> (B, C, *S)`` of convolutions, ``(B, N, C) -> (B, N, C)`` else."""
        return self.fc2(self.act(self.fc1(x)))
