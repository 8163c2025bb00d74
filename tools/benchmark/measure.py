# SPDX-License-Identifier: Apache-2.0
"""Time, memory and counted operations of the variants of one workload, each compared first."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from .parity import OUTPUTS, Truth, in_evaluation, in_training, maps_of
from .rows import Row
from .timing import (
    Roofline,
    memory_mib,
    on_gpu,
    quartiles,
    reserved_mib,
    seconds,
    slowest_operators,
)
from .traffic import moved_bytes
from .variants import COUNTED, PASSES, REPLAYED, build, conditions, decisive_state, why_not
from .workloads import Workload

# Reasons of refusals.
NO_MEMORY = 'ran out of memory'
NO_MEMORY_TO_COMPARE = (
    'the reference ran out of memory, even on a batch of 1, so parity cannot be checked'
)
MEMORY_ERRORS = ('out of memory', 'not enough memory', "can't allocate memory", 'ALLOC_FAILED')
T = TypeVar('T')


def step(network: nn.Module, x: Tensor, work: Workload) -> Callable[[], object]:
    """One forward without gradients, or one forward and backward (without a loss scaler)."""
    network.train(work.mode == 'training')

    def run() -> None:
        if work.mode == 'inference':
            with torch.no_grad():
                maps_of(network, x, work.dtype)
            return
        network.zero_grad(set_to_none=True)
        sum(y.float().square().mean() for y in maps_of(network, x, work.dtype)).backward()

    return run


def operations(network: nn.Module, work: Workload) -> float:
    """Operations of one step, from those of a forward pass over tensors without memory.

    A training step has two more for each, the gradients of both factors. The counter's own formula
    for gradients takes a depthwise convolution for a dense one.

    Args:
        network: The reference, on a CPU.
        work: What it does.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = work.sample('cpu')
        with FlopCounterMode(display=False) as flops:
            maps_of(network.eval(), x, work.dtype)
    return flops.get_total_flops() * (3 if work.mode == 'training' else 1)


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error is an allocator's; those of a CPU, libraries and compilers have no type."""
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(text in str(error) for text in MEMORY_ERRORS)


def attempt(function: Callable[..., T], *arguments: object) -> tuple[T | None, str]:
    """What a function returns, or why it cannot: no memory, or the sentence of a ``ValueError``."""
    try:
        return function(*arguments), ''
    except ValueError as error:
        return None, str(error)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
    return None, NO_MEMORY


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def find_truth(work: Workload, state: dict[str, Tensor], device: str) -> tuple[Truth | None, str]:
    """The truth for a work or, if memory does not suffice, for a batch of 1; or why there is none.

    All formulas see maps of the same sizes then, only fewer.
    """
    truth, reason = attempt(Truth.of, work, state, device)
    if reason != NO_MEMORY:
        return truth, reason
    free_memory()
    truth, reason = attempt(Truth.of, replace(work, shape=(1, *work.shape[1:])), state, device)
    return truth, NO_MEMORY_TO_COMPARE if reason == NO_MEMORY else reason


@dataclass
class Candidate:
    """A variant that computes what the reference does, while it is measured.

    Attributes:
        variant: Its name.
        work: What it does.
        network: It.
        run: One step.
        errors: Relative ones, by name.
        checked: See :class:`Row`.
        kept_mib: Memory that its recordings hold.
        times: Of its steps, in seconds.
    """

    variant: str
    work: Workload
    network: nn.Module | None
    run: Callable[[], object] | None
    errors: dict[str, float]
    checked: str
    kept_mib: float
    times: list[float] = field(default_factory=list)

    @classmethod
    def admit(
        cls, variant: str, work: Workload, state: dict[str, Tensor], truth: Truth, x: Tensor
    ) -> Candidate:
        """Build a variant, compare it and warm it up.

        Raises:
            ValueError: It computes something else, or cannot be built or run.
        """
        network, device = build(variant, work, state).to(x.device), str(x.device)
        replayed = variant in REPLAYED
        passes = PASSES if replayed else 1
        before = reserved_mib(device)
        errors = truth.errors(in_evaluation(network, truth.x, work.dtype, passes))
        truth.check(errors)
        if work.mode == 'training':
            before = reserved_mib(device)
            # A pass for the gradient of the input would not be replayed.
            found = in_training(network, truth.x, work.dtype, state, passes, not replayed)
            errors |= truth.errors(found)
            truth.check(errors)
            del found
        elsewhere = truth.x.shape != x.shape
        if elsewhere:
            before = reserved_mib(device)
        run = step(network, x, work)
        for _ in range(passes):
            run()
        kept = reserved_mib(device) - before
        checked = 'x'.join(map(str, (len(truth.x), *truth.x.shape[2:]))) if elsewhere else ''
        return cls(variant, work, network, run, errors, checked, kept)

    def time(self, device: str, clock: Callable[[], float]) -> None:
        """One step more."""
        self.times.append(seconds(self.run, device, clock))

    def product_dtype(self) -> str:
        """The dtype of its products: ours leaves half precision to processors that have it."""
        on_cpu = next(self.network.parameters()).device.type == 'cpu'
        dtype = self.work.dtype
        own = getattr(self.network, 'cpu_dtypes', {torch.bfloat16, torch.float16})
        emulates = dtype != 'float32' and getattr(torch, dtype) not in own
        return 'float32' if on_cpu and emulates else dtype

    def memory_mib(self, device: str) -> float:
        """See :class:`Row`."""
        if self.variant in REPLAYED:
            return self.kept_mib
        if 'compile' in self.variant and not device.startswith('cuda'):
            return 0.0
        return memory_mib(self.run, device)

    def row(
        self, device: str, work_flops: float, rooflines: dict[str, Roofline], operators: int
    ) -> Row:
        """What was measured, and what is counted and profiled now."""
        low, median, high = quartiles(self.times)
        roofline, of_matmul, of_copy = rooflines.get(self.product_dtype()), None, None
        if roofline is not None:
            of_matmul = work_flops / roofline.flops / median
        if self.variant in COUNTED:
            copied = next(iter(rooflines.values())).bytes
            of_copy = moved_bytes(self.run) / copied / median
        gpu = on_gpu(self.run, device)
        errors = dict(self.errors)
        return Row(
            self.work,
            self.variant,
            1e3 * median,
            1e3 * low,
            1e3 * high,
            self.memory_mib(device),
            of_matmul,
            of_copy,
            errors.pop(OUTPUTS),
            errors,
            self.checked,
            operators=slowest_operators(self.run, device, operators) if operators else {},
            overhead_ms=gpu.overhead_ms,
            gpu_ms=gpu.gpu_ms,
            launches=gpu.launches,
        )


class Cell:
    """The variants of one work: those that are measured, and those that are refused."""

    def __init__(self) -> None:
        self.candidates: dict[str, Candidate] = {}
        self.refused: dict[str, str] = {}

    def refuse(self, variant: str, reason: str) -> None:
        """Say why a variant is not measured (any more), and let it go."""
        self.refused[variant] = reason
        candidate = self.candidates.pop(variant, None)
        if candidate is not None:
            # Callers hold the candidate still; its memory must not wait for them.
            candidate.network = candidate.run = None
        free_memory()

    def attempt(self, variant: str, function: Callable[..., T], *arguments: object) -> T | None:
        """What a function returns that uses a variant; None, and a refusal, if it cannot."""
        with conditions(variant):
            result, reason = attempt(function, *arguments)
        if reason:
            self.refuse(variant, reason)
        return result

    def admit(
        self, variants: list[str], work: Workload, state: dict[str, Tensor], device: str
    ) -> None:
        """Compare variants with the reference and keep those that are right."""
        truth, reason = find_truth(work, state, device)
        x = None if truth is None else truth.x
        if truth is not None and len(x) != work.shape[0]:
            x, reason = attempt(work.sample, device)
        for variant in variants:
            if reason:
                self.refuse(variant, reason)
                continue
            found = self.attempt(variant, Candidate.admit, variant, work, state, truth, x)
            if found is not None:
                self.candidates[variant] = found


def measure(
    work: Workload,
    variants: list[str],
    device: str,
    repeats: int,
    rooflines: dict[str, Roofline],
    clock: Callable[[], float] = time.perf_counter,
    operators: int = 0,
    skipped: dict[str, str] | None = None,
) -> list[Row]:
    """Rows of one work, its variants timed in turn.

    Args:
        work: What to do.
        variants: By which networks.
        device: Where.
        repeats: Times each.
        rooflines: By dtype of matrix products, those that the device has.
        clock: Of a processor.
        operators: How many of the slowest are listed.
        skipped: Variants not to be tried, and why.
    """
    cell = Cell()
    for variant in variants:
        reason = (skipped or {}).get(variant) or why_not(variant, work, device)
        if reason:
            cell.refuse(variant, reason)
    left = [variant for variant in variants if variant not in cell.refused]
    work_flops = 0.0
    if left:
        state = decisive_state(work)
        work_flops = operations(build('official', work, state), work)
        cell.admit(left, work, state, device)
    for _ in range(repeats):
        for variant, candidate in list(cell.candidates.items()):
            cell.attempt(variant, candidate.time, device, clock)
    found = {
        variant: cell.attempt(variant, candidate.row, device, work_flops, rooflines, operators)
        for variant, candidate in list(cell.candidates.items())
    }
    if any('compile' in variant for variant in left):
        # Graphs of this work, and their memory; of one source there may be few.
        torch._dynamo.reset()
    return [
        found.get(variant) or Row(work, variant, refused=cell.refused[variant])
        for variant in variants
    ]
