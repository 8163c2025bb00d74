# SPDX-License-Identifier: Apache-2.0
"""What is known about a variant of a workload once it was measured."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import torch

from .timing import processor, versions
from .workloads import Workload


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: The workload.
        variant: By which network.
        median_ms: Median time; 0 if refused.
        low_ms: First quartile.
        high_ms: Third quartile.
        memory_mib: On a GPU the peak over the resident memory; on a CPU what a training forward
            keeps for the backward pass (0 in inference, and where a compiler keeps it). Of CUDA
            graphs what they hold for good, gradients of the parameters included.
        of_matmul: Time that the counted matrix multiplications need at the roofline of the dtype in
            which they are computed, as a share of the time; None where the processor emulates it.
        of_copy: The same for the bytes that the variant's operators read and write; None where they
            are not counted: a compiler's, and those of fused blocks.
        error: Relative error of the maps, in evaluation, against the reference in float32.
        training_errors: Of what else was compared for a training step, by name.
        checked: On which shape that was, where the reference had no memory for the work's; else
            empty.
        refused: Why there is no time; empty otherwise.
        operators: Shares of the time in PyTorch's slowest operators, if they were asked for.
        overhead_ms: CPU overhead on a GPU, the time until the call returns, before the GPU is done;
            where it equals the time, the CPU sets the pace.
        gpu_ms: GPU time, the sum of the times of all kernels of one call, profiled.
        launches: The number of these kernels.
    """

    work: Workload
    variant: str
    median_ms: float = 0.0
    low_ms: float = 0.0
    high_ms: float = 0.0
    memory_mib: float = 0.0
    of_matmul: float | None = None
    of_copy: float | None = None
    error: float = 0.0
    training_errors: dict[str, float] = field(default_factory=dict)
    checked: str = ''
    refused: str = ''
    operators: dict[str, float] = field(default_factory=dict)
    overhead_ms: float = 0.0
    gpu_ms: float = 0.0
    launches: int = 0


def describe(device: str, threads: int) -> str:
    """Device, versions and date."""
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{processor()}, {threads} threads'
    return f'{name}, {versions(device)}, {datetime.date.today().isoformat()}'
