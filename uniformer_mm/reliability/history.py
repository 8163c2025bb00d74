# SPDX-License-Identifier: Apache-2.0
"""Bounds for what a run remembers of its log."""

from __future__ import annotations

from mmengine.logging import MessageHub


def shorten(hub: MessageHub, length: int) -> None:
    """Let each history of ``hub`` keep its last ``length`` values, now and from now on.

    mmengine keeps a million of each, copies them at every update and writes them into each
    checkpoint.
    """
    for history in hub.log_scalars.values():
        history.max_length = min(history.max_length, length)
        history._log_history = history._log_history[-length:]
        history._count_history = history._count_history[-length:]
