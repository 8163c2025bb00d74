# SPDX-License-Identifier: Apache-2.0
"""Times of calls, what they move and keep, and what that is read against."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

MIB = 2**20
HOST_CALLS = 5
# Bytes of the copy that memory-bound operations are compared with.
COPY = {'cpu': 2**26, 'cuda': 2**30}


@dataclass(frozen=True)
class Roofline:
    """What the machine reaches at best: operations and bytes for each second."""

    flops: float
    bytes: float


def milliseconds(
    calls: dict[str, Callable[[], object]], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Times of each call, taken in turns so that a busy machine slows all alike.

    Args:
        calls: What to time, by name.
        args: Repeats of each, seconds of one measurement (which repeats a short call), threads,
            and whether to read the clock or the processor time.
    """
    settings = {'num_threads': args.threads}
    if args.processor_time:
        settings['timer'] = time.process_time
    timers = {
        name: Timer('call()', globals={'call': call}, **settings) for name, call in calls.items()
    }
    numbers = {}
    for name, timer in timers.items():
        timer.timeit(1)
        numbers[name] = max(1, int(args.seconds / max(timer.timeit(1).mean, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.repeats):
        for name, timer in timers.items():
            times[name].append(timer.timeit(numbers[name]).mean * 1e3)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, statistics.median(values), high


def device_name(device: str) -> str:
    """What ran, for people."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{processor()}, {torch.get_num_threads()} thread(s)'


def processor() -> str:
    """Name of the processor, and what it has for bfloat16."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
    flags = info.get('flags', '').split()
    found = ', '.join(name for name in ('avx512f', 'avx512_bf16', 'amx_tile') if name in flags)
    return f'{info.get("model name", platform.processor())} ({found})'


def triton_version() -> str:
    """The installed release of Triton, or ``'none'``."""
    try:
        import triton
    except ImportError:
        return 'none'
    return triton.__version__


def driver_version() -> str:
    """Of the GPUs, as their own tool tells it; ``'unknown'`` without that."""
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return next(iter(found.stdout.split()), 'unknown')


def versions(device: str) -> str:
    """Of everything a time depends on."""
    found = [f'torch {torch.__version__}', f'Triton {triton_version()}']
    if device.startswith('cuda'):
        runtime = torch.version.cuda or torch.version.hip
        found += [f'CUDA {runtime}', f'driver {driver_version()}']
    return ', '.join([*found, f'Python {platform.python_version()}'])


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Columns of a row: median and middle half of each call."""
    columns = {}
    for name, values in times.items():
        low, median, high = quartiles(values)
        columns |= {f'{name}_ms': median, f'{name}_low': low, f'{name}_high': high}
    return columns


def copied_per_millisecond(args: argparse.Namespace) -> float:
    """Bytes that a copy reads and writes in a millisecond."""
    source = torch.ones(COPY[args.device], dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    times = milliseconds({'copy': lambda: target.copy_(source)}, args)
    return 2 * source.nbytes / quartiles(times['copy'])[1]


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


def measure_roofline(
    device: str, dtype: str, clock: Callable[[], float] = time.perf_counter
) -> Roofline:
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
    return Roofline(flops=2 * size**3 / product, bytes=2 * length / copy)


def memory_mib(run: Callable[[], object], device: str) -> float:
    """Memory of a call beside what is there before.

    On a GPU its peak; on a CPU what the forward pass keeps for the backward pass.
    """
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


@dataclass(frozen=True)
class OnGpu:
    """What a GPU tells of one call; zeros on a CPU.

    Attributes:
        overhead_ms: CPU overhead: until the call returns, before the GPU is done.
        gpu_ms: GPU time: of all kernels.
        launches: Their number.
    """

    overhead_ms: float = 0.0
    gpu_ms: float = 0.0
    launches: int = 0


def on_gpu(run: Callable[[], object], device: str) -> OnGpu:
    """CPU overhead, GPU time and launches of a call."""
    if not device.startswith('cuda'):
        return OnGpu()
    overheads = []
    for _ in range(HOST_CALLS):
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        run()
        overheads.append(time.perf_counter() - begin)
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize(device)
    events = [event for event in profiled.key_averages() if event.self_device_time_total]
    kernels = [event for event in events if not event.key.startswith(('Memcpy', 'Memset'))]
    return OnGpu(
        1e3 * statistics.median(overheads),
        sum(event.self_device_time_total for event in events) / 1e3,
        sum(event.count for event in kernels),
    )


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
