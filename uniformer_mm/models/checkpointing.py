# SPDX-License-Identifier: Apache-2.0
"""Gradient checkpointing of blocks: keep the input, compute the rest again in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import is_batch_norm
from ..ops.tracing import is_compiling


def checkpointed(block: nn.Module, *arguments: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """``block(*arguments)`` that keeps only its arguments for the backward pass.

    DIFFERS: officially the recomputation updates the running BatchNorm statistics a second time.
    """
    # torch.compile recomputes from its graph, which updates no statistics, and traces no context.
    if is_compiling():
        return checkpoint(block, *arguments, use_reentrant=False)
    context = functools.partial(_contexts, block)
    return checkpoint(block, *arguments, use_reentrant=False, context_fn=context)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keep running BatchNorm statistics as they are while batch statistics are in use.

    Momentum 0 writes the old values back; leaving the buffers out altogether would save other
    tensors than the first forward did, which checkpointing refuses.
    """
    norms = [m for m in block.modules() if is_batch_norm(m) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        # Not None, which SyncBatchNorm refuses.
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _contexts(block: nn.Module) -> tuple:
    """Contexts of a checkpointed block's forward and of its recomputation."""
    return nullcontext(), _frozen_statistics(block)
