# SPDX-License-Identifier: Apache-2.0
"""Times of calls taken in turns, and what they are read against."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

# Bytes of the copy that memory-bound operations are compared with.
COPY = {'cpu': 2**26, 'cuda': 2**30}


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
