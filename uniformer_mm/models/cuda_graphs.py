# SPDX-License-Identifier: Apache-2.0
"""A network recorded as CUDA graphs: one call of the host starts all kernels of a pass.

Where the host needs longer to start the kernels than the GPU to run them, it sets the pace. A
recording holds the kernels of a forward pass, or of a forward and a backward pass, for one shape
of input. It reads parameters and statistics where they lie, so it goes on being right when they
are trained or loaded, and it is made anew when they move or when a layer is exchanged.

What is recorded must not ask the host between the kernels: no gradient checkpointing, which keeps
the state of the random generator, and no SyncBatchNorm in training.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from .functional import autocast_dtype, is_recorded
from .layers import BATCH_NORM, TENSOR_TYPES, is_batch_norm
from .plan import Watched
from .recordings import CudaRecorder, Inference, Recorder, Training
from .windows import recent

# How often a recording is made anew because something moved, before its shape is left alone.
MAX_RESTARTS = 4
# The name under which FSDP's wrapper holds what it wraps.
FSDP_CHILD = '_fsdp_wrapped_module'


class _State:
    """What a recording of a module rests on."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._look()

    def _look(self) -> None:
        modules = list(self.module.modules())
        self.watched = Watched([self.module])
        self.children = self.watched.children_now()
        self.held = [held for m in modules for held in (m._parameters, m._buffers) if held]
        self.norms = [m for m in modules if is_batch_norm(m)]
        # Synchronised ones, torch's or others'.
        own = tuple(BATCH_NORM.values())
        self.is_collective = any(type(m) not in own for m in self.norms)
        # Sharded with FSDP: parameters that are gathered between the layers, or views of them.
        self.is_sharded = any(
            FSDP_CHILD in m._modules or any(isinstance(v, Tensor) for v in vars(m).values())
            for m in modules
        )

    def now(self) -> tuple[tuple, list[Tensor]] | None:
        """What is equal to an earlier answer if nothing has changed, and the trained parameters.

        None where recording makes no sense: hooks on layers, sharded or quantised parameters, norms
        that speak to other processes, or whose share of a batch (``momentum=None``) the framework
        works out on the host.
        """
        layers = self.watched.state()
        if layers is not None and layers[0] != self.children:
            # Other layers have other parameters.
            self._look()
            layers = self.watched.state()
        momenta = [norm.momentum for norm in self.norms]
        on_host = self.is_collective or None in momenta
        if layers is None or self.is_sharded or (on_host and self.module.training):
            return None
        tensors = [t for held in self.held for t in held.values() if t is not None]
        for tensor in tensors:
            if type(tensor) not in TENSOR_TYPES:
                return None
        state = (
            layers,
            [tensor.data_ptr() for tensor in tensors],
            [tensor.requires_grad for tensor in tensors],
            momenta,
            [norm.track_running_stats for norm in self.norms],
        )
        return state, [tensor for tensor in tensors if tensor.requires_grad]


class _Shape:
    """What has been seen of one shape of input."""

    def __init__(self, state: tuple) -> None:
        self.restarts = 0
        self.restart(state)

    def restart(self, state: tuple) -> None:
        """Begin to warm up."""
        self.state = state
        self.passes = 0
        self.kept: tuple = ()
        self.recording: Inference | Training | None = None

    def count(self, _: Tensor | None = None) -> None:
        """One more complete pass."""
        self.passes += 1


class GraphedForward:
    """The ``forward`` of a module that :func:`use_cuda_graphs` gives it.

    Args:
        module: Whose.
        warmup: See :func:`use_cuda_graphs`.
        max_shapes: See :func:`use_cuda_graphs`.
        recorder: Of the device.
    """

    def __init__(self, module: nn.Module, warmup: int, max_shapes: int, recorder: Recorder) -> None:
        self.module, self.warmup, self.max_shapes = module, warmup, max_shapes
        self.recorder = recorder
        self._forget()

    def _forget(self) -> None:
        # Not before the first pass: a module that is being copied has no layers yet.
        self._state: _State | None = None
        self._shapes: dict[tuple, _Shape] = {}
        self._pools: dict[torch.device, Any] = {}

    def __getstate__(self) -> dict:
        """Copies and pickles of the module record by themselves."""
        return {name: value for name, value in vars(self).items() if not name.startswith('_')}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._forget()

    def run(self, *args, **kwargs) -> Any:
        """The module's own forward pass."""
        return type(self.module).forward(self.module, *args, **kwargs)

    def __call__(self, *args, **kwargs) -> Any:
        """The outputs of the module, from a recording where there is one."""
        if len(args) != 1 or kwargs or not self._can_record(*args):
            return self.run(*args, **kwargs)
        (x,) = args
        self._state = self._state or _State(self.module)
        now = self._state.now()
        if now is None:
            return self.run(x)
        state, trained = now
        trains = bool(trained) and torch.is_grad_enabled()
        key = (*x.shape, x.dtype, x.device, autocast_dtype(x), self.module.training, trains)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= self.max_shapes:
                return self.run(x)
            shape = self._shapes[key] = _Shape(state)
        if shape.state != state:
            shape.restarts += 1
            shape.restart(state)
            if shape.restarts == MAX_RESTARTS:
                print_log(
                    f'Parameters or layers of {type(self.module).__name__} move between passes '
                    f'over inputs of shape {tuple(x.shape)}, so these are not recorded as CUDA '
                    'graphs any more; is the module sharded?',
                    'current',
                    logging.WARNING,
                )
        if shape.restarts >= MAX_RESTARTS:
            return self.run(x)
        if shape.recording is None:
            if shape.passes < self.warmup:
                return self._warm_up(shape, x, trains)
            shape.recording = self._record(x, trained if trains else [])
        recording = shape.recording
        if trains and recording.is_pending():
            return self.run(x)
        return recording(x)

    def _can_record(self, x: Any) -> bool:
        return (
            type(x) is Tensor
            and not x.requires_grad
            and self.recorder.takes(x)
            and not is_recorded()
            # Counters of operations see the kernels of no recording.
            and not torch._C._len_torch_dispatch_stack()
        )

    def _warm_up(self, shape: _Shape, x: Tensor, trains: bool) -> Any:
        """A pass as usual, in which kernels are compiled and memory of libraries is taken."""
        result = self.run(x)
        shape.kept = recent()
        if not trains:
            shape.count()
            return result
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(shape.count)
                break
        return result

    def _record(self, x: Tensor, trained: list[Tensor]) -> Inference | Training:
        if trained:
            # One that several layers share is one parameter.
            return Training(self.module, self.run, x, self.recorder, list(dict.fromkeys(trained)))
        if x.device not in self._pools:
            self._pools[x.device] = self.recorder.pool(x)
        return Inference(self.run, x, self.recorder, self._pools[x.device])


def use_cuda_graphs(
    module: nn.Module,
    *,
    warmup: int = 2,
    max_shapes: int = 8,
    recorder: Recorder | None = None,
) -> None:
    """Let a module on a GPU record its passes as CUDA graphs and replay them.

    For inputs of few shapes: each is recorded once, after ``warmup`` passes as usual, and keeps its
    memory. All else runs as before: other devices, more shapes, hooks on layers, inputs with
    gradients, counters of operations, a second forward pass before the backward pass of the first.
    Parameters, their names and checkpoints stay as they are; numbers that layers hold, such as the
    rate of stochastic depth, are those of the recording.

    Args:
        module: With one tensor as its input, such as a backbone.
        warmup: Passes before a recording.
        max_shapes: Recordings at most; training, evaluation and precisions count one by one.
        recorder: Other than CUDA graphs.

    Raises:
        ValueError: The module has gradient checkpointing or is compiled, or a number is not
            positive.
    """
    name = type(module).__name__
    for argument, value in {'warmup': warmup, 'max_shapes': max_shapes}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f'{argument}={value!r} must be a positive integer.')
    if any(any(getattr(m, 'cp_blocks', ())) for m in module.modules()):
        raise ValueError(
            f'{name} was built with gradient checkpointing (with_cp), which CUDA graphs cannot '
            'hold; build it with with_cp=False or do without CUDA graphs.'
        )
    if getattr(module, '_compiled_call_impl', None) is not None:
        raise ValueError(
            f'{name} is compiled already; torch.compile has CUDA graphs of its own '
            "(mode='reduce-overhead'). Use one of both."
        )
    own = vars(module).get('forward')
    if own is not None and not isinstance(own, GraphedForward):
        raise ValueError(
            f'{name} has a forward of its own that is not that of its class, and so would be lost; '
            'use CUDA graphs first.'
        )
    module.forward = GraphedForward(module, warmup, max_shapes, recorder or CudaRecorder())
