# SPDX-License-Identifier: Apache-2.0
"""A stand-in for CUDA graphs on a processor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def results_of(work: Callable[[], None]) -> list[tuple[list, int, Tensor]]:
    """The tensors in which a recording leaves what it computes, and where it holds them."""
    recording = work.__self__
    if work.__name__ == '_backward':
        return [(recording.flats, i, flat) for i, flat in enumerate(recording.flats)]
    leaves = recording.outputs
    return [(leaves, i, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]


class Rehearsal:
    """Recording is work that leaves statistics and random numbers alone, replaying is work."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def takes(self, x: Tensor) -> bool:
        return True

    def pool(self, x: Tensor) -> None:
        return None

    def record(self, work: Callable[[], None], x: Tensor, pool: None) -> Callable[[], None]:
        module = work.__self__.run.__self__.module
        before = [buffer.clone() for buffer in module.buffers()]
        with torch.random.fork_rng(devices=[]):
            work()
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.data.copy_(value)
        self.recorded += 1
        autocast = torch.is_autocast_enabled('cpu')
        assert not (autocast and torch.is_autocast_cache_enabled())
        gradients = torch.is_grad_enabled()
        memory = [result for *_, result in results_of(work)]

        def replay() -> None:
            self.replayed += 1
            with (
                torch.inference_mode(False),
                torch.set_grad_enabled(gradients),
                torch.autocast('cpu', torch.bfloat16, enabled=autocast, cache_enabled=False),
            ):
                work()
            # Where the recording had them.
            for own, (held, index, result) in zip(memory, results_of(work), strict=True):
                held[index] = own.copy_(result)

        return replay
