# SPDX-License-Identifier: Apache-2.0
"""Timing, memory, counted work and parity of the variants of one work."""

from __future__ import annotations

import datetime
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .timing import processor
from .variants import PASSES, REPLAYED, Work, build, random_state, why_not

MIB = 2**20
# Largest relative error of the maps against the reference in float32, and in half precision
# against the reference's own error there.
FLOAT32_TOLERANCE = 1e-4
HALF_FACTOR = 3
HOST_CALLS = 5
_VIEWS = {
    'view',
    '_unsafe_view',
    'permute',
    'transpose',
    't',
    'slice',
    'select',
    'split',
    'unsqueeze',
    'squeeze',
    'expand',
    'as_strided',
    'alias',
    'detach',
    'device',
    'unfold',
    'unbind',
    'empty',
    'empty_strided',
    'new_empty',
}


@dataclass(frozen=True)
class Ceilings:
    """What the machine reaches at best: operations and bytes for each second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: What was done.
        variant: By which network.
        median_ms: Median time; 0 if refused.
        low_ms: First quartile.
        high_ms: Third quartile.
        memory_mib: On a GPU the peak over the resident memory; on a CPU what a training forward
            keeps for the backward pass (0 in inference, and where a compiler keeps it). Of CUDA
            graphs what they hold for good, gradients of the parameters included.
        of_matmul: Time that the counted products need at the ceiling, as a share of the time.
        of_copy: The same for the bytes that the variant's operators read and write.
        error: Relative error against the reference in float32.
        refused: Why there is no time; empty otherwise.
        operators: Shares of the time in the framework's slowest operators, if they were asked for.
        host_ms: On a GPU the time until the call returns, before the GPU is done; where it equals
            the time, the host sets the pace.
        busy_ms: On a GPU the sum of the times of all kernels of one call, profiled.
    """

    work: Work
    variant: str
    median_ms: float = 0.0
    low_ms: float = 0.0
    high_ms: float = 0.0
    memory_mib: float = 0.0
    of_matmul: float = 0.0
    of_copy: float = 0.0
    error: float = 0.0
    refused: str = ''
    operators: dict[str, float] = field(default_factory=dict)
    host_ms: float = 0.0
    busy_ms: float = 0.0


class CountBytes(TorchDispatchMode):
    """Adds up what operators, and kernels that are launched directly, read and write; no views."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.launches = 0

    def add(self, values: Iterable[object]) -> None:
        """Count each tensor among ``values`` once."""
        tensors = {id(value): value for value in values if isinstance(value, Tensor)}
        self.total += sum(tensor.nbytes for tensor in tensors.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run ``func`` and count its tensors, or those of the kernels inside it."""
        launches = self.launches
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in _VIEWS and launches == self.launches:
            self.add((*args, *(result if isinstance(result, tuple) else (result,))))
        return result

    @contextmanager
    def with_kernels(self) -> Iterator[CountBytes]:
        """Count within this context; not from several threads."""
        if importlib.util.find_spec('triton') is None:
            with self:
                yield self
            return
        from uniformer_mm.ops.launch import Kernel

        launch = Kernel.__call__

        def counted(kernel: Kernel, grid: tuple, tensors: tuple, *rest: object) -> None:
            self.launches += 1
            self.add(tensors)
            launch(kernel, grid, tensors, *rest)

        Kernel.__call__ = counted
        try:
            with self:
                yield self
        finally:
            Kernel.__call__ = launch


def describe(device: str, threads: int) -> str:
    """Device, versions and date."""
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{processor()}, {threads} threads'
    date = datetime.date.today().isoformat()
    return f'{name}, torch {torch.__version__}, Python {platform.python_version()}, {date}'


def seconds(
    call: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time of one call, until the device is done; ``clock`` is that of a processor."""
    if device.startswith('cuda'):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    begin = clock()
    call()
    return clock() - begin


def measure_ceilings(
    device: str, dtype: str, clock: Callable[[], float] = time.perf_counter
) -> Ceilings:
    """Best of ten of a large square product and of a large copy."""
    cuda = device.startswith('cuda')
    size, length = (8192, 2**29) if cuda else (1024, 2**25)
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    source = torch.ones(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(call: Callable[[], object]) -> float:
        call()
        return min(seconds(call, device, clock) for _ in range(10))

    product, copy = best(lambda: a @ b), best(lambda: target.copy_(source))
    return Ceilings(flops=2 * size**3 / product, bytes=2 * length / copy)


def step(network: nn.Module, x: Tensor, work: Work) -> Callable[[], object]:
    """One forward without gradients, or one forward and backward."""
    half = work.dtype == 'bfloat16'
    network.train(work.mode == 'training')

    def run() -> object:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=half):
            if work.mode == 'inference':
                with torch.no_grad():
                    return network(x)
            network.zero_grad(set_to_none=True)
            result = network(x)
            maps = result if isinstance(result, tuple) else (result,)
            loss = sum(y.float().square().mean() for y in maps)
        loss.backward()
        return None

    return run


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor, dtype: str) -> Tensor:
    """All maps in evaluation mode, as one float64 vector."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=dtype == 'bfloat16'):
        result = network.eval()(x)
    maps = result if isinstance(result, tuple) else (result,)
    return torch.cat([y.double().flatten() for y in maps])


def memory_mib(run: Callable[[], object], device: str) -> float:
    """See :class:`Row`."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
        resident = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - resident) / MIB
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values()) / MIB


def reserved_mib(device: str) -> float:
    """Memory that a GPU's allocator cannot give back; 0 on a CPU."""
    if not device.startswith('cuda'):
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device) / MIB


def operations(network: nn.Module, x: Tensor, work: Work) -> float:
    """Operations of one step, from those of a forward pass.

    A training step has two more for each, the gradients of both factors. The counter's own formula
    for gradients takes a depthwise convolution for a dense one.
    """
    with FlopCounterMode(display=False) as flops:
        outputs(network, x, work.dtype)
    return flops.get_total_flops() * (3 if work.mode == 'training' else 1)


def moved_bytes(run: Callable[[], object]) -> float:
    """Bytes that the operators of one step read and write."""
    with CountBytes().with_kernels() as moved:
        run()
    return moved.total


def host_and_busy(run: Callable[[], object], device: str) -> tuple[float, float]:
    """See :class:`Row`; zeros on a CPU."""
    if not device.startswith('cuda'):
        return 0.0, 0.0
    host = []
    for _ in range(HOST_CALLS):
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        run()
        host.append(time.perf_counter() - begin)
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize(device)
    busy = sum(event.self_device_time_total for event in profiled.key_averages())
    return 1e3 * statistics.median(host), busy / 1e3


def slowest_operators(run: Callable[[], object], device: str, count: int) -> dict[str, float]:
    """Shares of a profiled call's own time, largest first."""
    kinds = {'cpu': ProfilerActivity.CPU, 'cuda': ProfilerActivity.CUDA}
    kind = device.partition(':')[0]
    with profile(activities=[kinds[kind]]) as profiled:
        run()
    name = 'self_cpu_time_total' if kind == 'cpu' else 'self_device_time_total'
    times = {event.key: getattr(event, name) for event in profiled.key_averages()}
    total = sum(times.values())
    slowest = sorted(times, key=times.get, reverse=True)[:count]
    return {key: times[key] / total for key in slowest}


def _passes(variant: str) -> int:
    return PASSES if variant in REPLAYED else 1


@dataclass(frozen=True)
class Truth:
    """The reference's maps in float32 and the largest error that is allowed in the work's dtype."""

    maps: Tensor
    limit: float

    @classmethod
    def of(cls, reference: nn.Module, x: Tensor, dtype: str) -> Truth:
        """Of a reference that no training step has changed yet."""
        truth = cls(outputs(reference, x, 'float32'), FLOAT32_TOLERANCE)
        if dtype == 'float32':
            return truth
        return cls(truth.maps, truth.limit + HALF_FACTOR * truth.error(reference, x, dtype))

    def error(self, network: nn.Module, x: Tensor, dtype: str) -> float:
        """Relative error of a network's maps."""
        return float((outputs(network, x, dtype) - self.maps).norm() / self.maps.norm())


def measure(
    work: Work,
    variants: list[str],
    device: str,
    repeats: int,
    ceilings: Ceilings,
    clock: Callable[[], float] = time.perf_counter,
    operators: int = 0,
) -> list[Row]:
    """Rows of one work, its variants timed in turn; ``operators`` says how many are listed."""
    x, state = work.sample(device), random_state(work)
    against = 'eager' if why_not('official', work, device) else 'official'
    reference = build(against, work, state).to(device)
    truth = Truth.of(reference, x, work.dtype)
    work_flops = operations(reference, x, work)
    refused, runs, rows, found, networks = {}, {}, [], {}, {}
    for variant in variants:
        reason = why_not(variant, work, device)
        if reason is None:
            network = build(variant, work, state).to(device)
            for _ in range(_passes(variant)):
                found[variant] = truth.error(network, x, work.dtype)
            if not found[variant] <= truth.limit:
                reason = f'its outputs differ by {found[variant]:.1e}, more than {truth.limit:.1e}'
        if reason is not None:
            refused[variant] = reason
            continue
        networks[variant] = network
        runs[variant] = step(network, x, work)
    times = {variant: [] for variant in runs}
    kept = {}
    for variant, run in runs.items():
        before = reserved_mib(device)
        networks[variant].train(work.mode == 'training')
        for _ in range(_passes(variant)):
            run()
        kept[variant] = reserved_mib(device) - before
    for _ in range(repeats):
        for variant, run in runs.items():
            times[variant].append(seconds(run, device, clock))
    for variant in variants:
        if variant in refused:
            rows.append(Row(work, variant, refused=refused[variant]))
            continue
        run, median = runs[variant], statistics.median(times[variant])
        low, _, high = statistics.quantiles([*times[variant], median], n=4)
        eager = 'compile' not in variant
        memory = 0.0
        if variant in REPLAYED:
            memory = kept[variant]
        elif eager or device.startswith('cuda'):
            memory = memory_mib(run, device)
        rows.append(
            Row(
                work,
                variant,
                1e3 * median,
                1e3 * low,
                1e3 * high,
                memory,
                work_flops / ceilings.flops / median,
                moved_bytes(run) / ceilings.bytes / median if eager else 0.0,
                found[variant],
                operators=slowest_operators(run, device, operators) if operators else {},
                **dict(zip(('host_ms', 'busy_ms'), host_and_busy(run, device), strict=True)),
            )
        )
    return rows
