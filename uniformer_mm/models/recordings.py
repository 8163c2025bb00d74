# SPDX-License-Identifier: Apache-2.0
"""Recorded passes of a module over inputs of one shape, and how they are replayed.

See ``cuda_graphs.py`` for when. Results are copied out of a recording's memory, which the next
replay writes to again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..ops import rows
from .functional import autocast_dtype
from .windows import recent


class Recorder(Protocol):
    """What can record the work of a device."""

    def takes(self, x: Tensor) -> bool:
        """Whether work on ``x`` can be recorded."""

    def pool(self, x: Tensor) -> Any:
        """Memory for recordings on the device of ``x``; see :meth:`record`."""

    def record(self, work: Callable[[], None], x: Tensor, pool: Any) -> Callable[[], None]:
        """Record what ``work`` does on the device of ``x`` without doing it.

        Args:
            work: Called once.
            x: A tensor on the device.
            pool: Where the recording has its memory. Recordings that share it run one after the
                other in the order in which they were made, or leave nothing there for each other.

        Returns:
            A function that does what was recorded.
        """


class CudaRecorder:
    """CUDA graphs."""

    def takes(self, x: Tensor) -> bool:
        """See :class:`Recorder`."""
        return x.is_cuda and not torch.cuda.is_current_stream_capturing()

    def pool(self, x: Tensor) -> tuple:
        """See :class:`Recorder`: the pool's handle and the stream on which to record."""
        with torch.cuda.device(x.device):
            return torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def record(self, work: Callable[[], None], x: Tensor, pool: Any) -> Callable[[], None]:
        """See :class:`Recorder`."""
        graph, (handle, stream) = torch.cuda.CUDAGraph(), pool
        # Errors of this thread only: in another, loaders pin memory, which is no fault.
        mode = 'thread_local'
        recording = torch.cuda.graph(graph, pool=handle, stream=stream, capture_error_mode=mode)
        # A recording that fails can leave its stream the current one.
        before = torch.cuda.current_stream(x.device)
        with torch.cuda.device(x.device), torch.cuda.stream(before), recording:
            work()
        return graph.replay


def _in_mode_of(x: Tensor) -> torch.autocast | nullcontext:
    """The present autocast, without its memory of casts, which recordings would find empty."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return nullcontext()
    return torch.autocast(x.device.type, dtype=dtype, cache_enabled=False)


class Inference:
    """A recorded forward pass without gradients."""

    def __init__(
        self, run: Callable[[Tensor], Any], x: Tensor, recorder: Recorder, pool: Any
    ) -> None:
        with torch.inference_mode(False), torch.no_grad(), _in_mode_of(x):
            self.x = torch.empty_like(x)
            self.run = run
            self.replay = recorder.record(self._forward, x, pool)
        self.kept = rows.tables(x), recent()

    def _forward(self) -> None:
        self.outputs, self.structure = tree_flatten(self.run(self.x))

    def __call__(self, x: Tensor) -> Any:
        """The outputs for another input."""
        self.x.copy_(x)
        self.replay()
        # Copies: the next replay writes to the same memory.
        return tree_unflatten([_copy(leaf) for leaf in self.outputs], self.structure)


class Training:
    """A recorded forward pass, and its backward pass to the parameters.

    Args:
        module: What is recorded.
        run: Its forward pass.
        x: An input.
        recorder: Of the device.
        parameters: Those that have gradients, each once.
    """

    def __init__(
        self,
        module: nn.Module,
        run: Callable[[Tensor], Any],
        x: Tensor,
        recorder: Recorder,
        parameters: Sequence[Tensor],
    ) -> None:
        self.module, self.run, self.parameters = module, run, parameters
        # Others over the same memory: autograd's end points of the parameters themselves wait for
        # the stream on which they were made, which is not the one that is recorded; DDP keeps them.
        self.stand_ins = {p: nn.Parameter(p.detach()) for p in parameters}
        self.number, self.pending = 0, None
        self.x = torch.empty_like(x)
        # Of its own: what the forward pass keeps lies there until the backward pass.
        pool = recorder.pool(x)
        with _in_mode_of(x):
            self.forward = recorder.record(self._forward, x, pool)
        self.cotangents = [torch.empty_like(map_) for map_ in self.maps]
        # As the engine runs it, whatever the caller's autocast: products outside the formulas have
        # their gradients in the dtype of their inputs.
        with torch.autocast(x.device.type, enabled=False):
            self.backward = recorder.record(self._backward, x, pool)
        self.maps = ()
        self.kept = rows.tables(x), recent()

    @contextmanager
    def _with_stand_ins(self) -> Iterator[None]:
        held = [m._parameters for m in self.module.modules() if m._parameters]
        before = [dict(parameters) for parameters in held]
        for parameters in held:
            parameters.update({n: self.stand_ins.get(p, p) for n, p in parameters.items()})
        try:
            yield
        finally:
            for parameters, own in zip(held, before, strict=True):
                parameters.update(own)

    def _forward(self) -> None:
        with self._with_stand_ins():
            leaves, self.structure = tree_flatten(self.run(self.x))
        self.is_map = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
        self.maps = [leaf for leaf, is_map in zip(leaves, self.is_map, strict=True) if is_map]
        self.outputs = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def _backward(self) -> None:
        gradients = torch.autograd.grad(
            self.maps, list(self.stand_ins.values()), self.cotangents, allow_unused=True
        )
        by_dtype: dict[torch.dtype, list[int]] = {}
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                by_dtype.setdefault(gradient.dtype, []).append(place)
        # All of a dtype in one piece, so that one copy on the host's side hands them on.
        self.places = list(by_dtype.values())
        self.flats = [torch.cat([gradients[i].flatten() for i in alike]) for alike in self.places]

    def is_pending(self) -> bool:
        """Whether a backward pass may still need what the last forward pass kept."""
        return self.pending is not None and self.pending() is not None

    def start(self, x: Tensor) -> tuple[int, _Pending]:
        """Run the forward pass; its number, and what has to live until its backward pass."""
        self.x.copy_(x)
        self.forward()
        self.number += 1
        pending = _Pending()
        self.pending = weakref.ref(pending)
        return self.number, pending

    def gradients(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Run the backward pass; gradients in the order of the parameters."""
        for own, given in zip(self.cotangents, cotangents, strict=True):
            if given is None:
                own.zero_()
            else:
                own.copy_(given)
        self.backward()
        gradients: list[Tensor | None] = [None] * len(self.parameters)
        for flat, places in zip(self.flats, self.places, strict=True):
            sizes = [self.parameters[place].numel() for place in places]
            # A copy: the parameters keep gradients for longer than until the next replay.
            for place, part in zip(places, flat.clone().split_with_sizes(sizes), strict=True):
                gradients[place] = part.view(self.parameters[place].shape)
        return gradients

    def __call__(self, x: Tensor) -> Any:
        """The outputs for another input, with gradients to the parameters."""
        return tree_unflatten(list(_Replay.apply(self, x, *self.parameters)), self.structure)


class _Pending:
    """Lives as long as a backward pass may come."""


class _Replay(torch.autograd.Function):
    """A recorded training pass as a function of the parameters."""

    @staticmethod
    def forward(ctx, recording: Training, x: Tensor, *_: Tensor) -> tuple:
        ctx.recording = recording
        ctx.number, ctx.pending = recording.start(x)
        ctx.set_materialize_grads(False)
        outputs = [_copy(leaf) for leaf in recording.outputs]
        pairs = list(zip(outputs, recording.is_map, strict=True))
        ctx.mark_non_differentiable(
            *[leaf for leaf, is_map in pairs if isinstance(leaf, Tensor) and not is_map]
        )
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *cotangents: Tensor | None) -> tuple:
        recording = ctx.recording
        if ctx.number != recording.number:
            raise RuntimeError(
                'The gradient of a recorded pass was asked for a second time (retain_graph) after '
                'another pass of the same shape, which has overwritten what it needs; go backward '
                'before the next forward pass, or train without CUDA graphs.'
            )
        maps = [c for c, is_map in zip(cotangents, recording.is_map, strict=True) if is_map]
        gradients = recording.gradients(maps)
        ctx.pending = None
        return None, None, *gradients


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
