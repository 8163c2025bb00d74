# SPDX-License-Identifier: Apache-2.0
"""Timing, memory, counted work and parity of the variants of one work."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from uniformer_mm.models import ARCHS

from .timing import (
    Ceilings,
    host_and_busy,
    memory_mib,
    moved_bytes,
    processor,
    quartiles,
    reserved_mib,
    seconds,
    slowest_operators,
    versions,
)
from .variants import (
    PASSES,
    REPLAYED,
    Work,
    build,
    conditions,
    decisive_state,
    trunk,
    why_not,
)

# Largest relative error against the reference in float32 (seen: 1e-6 for maps and gradients, 1e-5
# where a BatchNorm has two values for each channel), and, where the work is done in another
# precision, what the reference's own error there adds.
FLOAT32_TOLERANCE = 1e-4
OWN_FACTOR = 3
# Least that is added in half precision for a light arch: nearly equal scores decide which tokens it
# keeps, and rounding decides some otherwise (seen: 0.17 for gradients of the reference).
LIGHT_ALLOWANCE = 0.3
# What is compared, in the words of a refusal.
OUTPUTS, TRAINED_OUTPUTS, STATISTICS = 'outputs', 'outputs in training', 'running statistics'
PARAMETER_GRADIENTS, INPUT_GRADIENTS = 'parameter gradients', 'input gradients'
Found = dict[str, list[Tensor]]
# Reasons of refusals.
NO_MEMORY = 'ran out of memory'
NO_MEMORY_TO_COMPARE = (
    'the reference ran out of memory, even on a batch of 1, so parity cannot be checked'
)
MEMORY_ERRORS = ('out of memory', 'not enough memory', "can't allocate memory", 'ALLOC_FAILED')
T = TypeVar('T')


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
        of_matmul: Time that the counted products need at the ceiling of the dtype in which they are
            computed, as a share of the time; None where the processor emulates it.
        of_copy: The same for the bytes that the variant's operators read and write; None where
            these are a compiler's, which are not counted.
        error: Relative error of the maps, in evaluation, against the reference in float32.
        training_errors: Of what else was compared for a training step, by name.
        checked: On which shape that was, where the reference had no memory for the work's; else
            empty.
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
    of_matmul: float | None = None
    of_copy: float | None = None
    error: float = 0.0
    training_errors: dict[str, float] = field(default_factory=dict)
    checked: str = ''
    refused: str = ''
    operators: dict[str, float] = field(default_factory=dict)
    host_ms: float = 0.0
    busy_ms: float = 0.0


def describe(device: str, threads: int) -> str:
    """Device, versions and date."""
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{processor()}, {threads} threads'
    return f'{name}, {versions(device)}, {datetime.date.today().isoformat()}'


def autocast(x: Tensor, dtype: str) -> AbstractContextManager:
    """Autocast to half precision on the device of ``x``; none for float32."""
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast(x.device.type, dtype=getattr(torch, dtype))


def maps_of(network: nn.Module, x: Tensor, dtype: str) -> tuple[Tensor, ...]:
    """The maps of one forward pass."""
    with autocast(x, dtype):
        result = network(x)
    return result if isinstance(result, tuple) else (result,)


def step(network: nn.Module, x: Tensor, work: Work) -> Callable[[], object]:
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


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor, dtype: str) -> Tensor:
    """All maps in evaluation mode, as one float64 vector."""
    return torch.cat([y.double().flatten() for y in maps_of(network.eval(), x, dtype)])


@torch.no_grad()
def in_evaluation(network: nn.Module, x: Tensor, dtype: str, passes: int = 1) -> Found:
    """What the last of some passes in evaluation mode gives."""
    network.eval()
    for _ in range(passes - 1):
        maps_of(network, x, dtype)
    return {OUTPUTS: list(maps_of(network, x, dtype))}


def in_training(
    network: nn.Module,
    x: Tensor,
    dtype: str,
    state: dict[str, Tensor],
    passes: int = 1,
    with_input: bool = True,
) -> Found:
    """What the last of some training passes gives, all of which begin with the same statistics.

    Args:
        network: Any variant.
        x: An input, which wants no gradient, as in the steps that are timed.
        dtype: Of autocast, or float32.
        state: Parameters and statistics.
        passes: How many.
        with_input: Whether to make one more pass for the gradient of the input.
    """
    network.train()
    for _ in range(passes - 1):
        _training_pass(network, x, dtype, state)
    found = {TRAINED_OUTPUTS: _training_pass(network, x, dtype, state)}
    buffers = sorted(trunk(network).named_buffers())
    parameters = [p for _, p in sorted(trunk(network).named_parameters())]
    found[STATISTICS] = [tensor.clone() for name, tensor in buffers if 'running' in name]
    found[PARAMETER_GRADIENTS] = [
        torch.zeros_like(p) if p.grad is None else p.grad for p in parameters
    ]
    if with_input:
        x = x.clone().requires_grad_()
        _training_pass(network, x, dtype, state)
        found[INPUT_GRADIENTS] = [x.grad]
    network.zero_grad(set_to_none=True)
    return found


def _training_pass(
    network: nn.Module, x: Tensor, dtype: str, state: dict[str, Tensor]
) -> list[Tensor]:
    """Forward and backward from random gradients of the maps.

    The mean square of the timed steps has next to no gradient before a BatchNorm, whose outputs
    have the same one whatever comes in; nor would float16 hold it without a scaler.
    """
    trunk(network).load_state_dict(state)
    network.zero_grad(set_to_none=True)
    maps = [y.float() for y in maps_of(network, x, dtype)]
    draw = torch.Generator().manual_seed(0)
    torch.autograd.backward(maps, [torch.randn(y.shape, generator=draw).to(y) for y in maps])
    return [y.detach() for y in maps]


def relative_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Of several tensors as one vector.

    Raises:
        ValueError: They have other shapes.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, exact)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'it has results of shapes {shapes[0]}, but the reference {shapes[1]}')
    squares = [
        torch.stack([(a.double() - b.double()).square().sum(), b.double().square().sum()])
        for a, b in zip(found, exact, strict=True)
    ]
    difference, size = sum(squares)
    return float((difference / size).sqrt())


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions of a GPU without TF32, which they use unless told."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True)
class Truth:
    """What the reference computes in float32, and how far off a variant may be.

    Attributes:
        x: The input.
        results: By name.
        limits: Largest relative errors in the work's dtype, by name.
    """

    x: Tensor
    results: Found
    limits: dict[str, float]

    @classmethod
    def of(cls, work: Work, state: dict[str, Tensor], device: str) -> Truth:
        """For one work; its mode says what is compared."""
        x, reference = work.sample(device), build('official', work, state).to(device)

        def computed(dtype: str) -> Found:
            found = in_evaluation(reference, x, dtype)
            if work.mode == 'training':
                found |= in_training(reference, x, dtype, state)
            return found

        with exact_float32():
            truth = cls(x, computed('float32'), {})
        own = dict.fromkeys(truth.results, 0.0)
        if work.dtype != 'float32' or x.is_cuda:
            own = truth.errors(computed(work.dtype))
        light = work.dtype != 'float32' and ARCHS[work.arch].keep_ratios
        least = LIGHT_ALLOWANCE if light else 0.0
        limits = {
            name: FLOAT32_TOLERANCE + max(OWN_FACTOR * error, least) for name, error in own.items()
        }
        return replace(truth, limits=limits)

    def errors(self, found: Found) -> dict[str, float]:
        """Relative errors of results, by name."""
        return {name: relative_error(part, self.results[name]) for name, part in found.items()}

    def check(self, errors: dict[str, float]) -> None:
        """See that errors are within their limits.

        Raises:
            ValueError: One is not, or not a number.
        """
        for name, error in errors.items():
            if not error <= self.limits[name]:
                raise ValueError(
                    f'its {name} differ by {error:.1e}, more than {self.limits[name]:.1e}'
                )


def operations(network: nn.Module, work: Work) -> float:
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


def find_truth(work: Work, state: dict[str, Tensor], device: str) -> tuple[Truth | None, str]:
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
    work: Work
    network: nn.Module | None
    run: Callable[[], object] | None
    errors: dict[str, float]
    checked: str
    kept_mib: float
    times: list[float] = field(default_factory=list)

    @classmethod
    def admit(
        cls, variant: str, work: Work, state: dict[str, Tensor], truth: Truth, x: Tensor
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
        self, device: str, work_flops: float, ceilings: dict[str, Ceilings], operators: int
    ) -> Row:
        """What was measured, and what is counted and profiled now."""
        low, median, high = quartiles(self.times)
        ceiling, of_matmul, of_copy = ceilings.get(self.product_dtype()), None, None
        if ceiling is not None:
            of_matmul = work_flops / ceiling.flops / median
        if 'compile' not in self.variant:
            copied = next(iter(ceilings.values())).bytes
            of_copy = moved_bytes(self.run) / copied / median
        host_ms, busy_ms = host_and_busy(self.run, device)
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
            host_ms=host_ms,
            busy_ms=busy_ms,
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

    def admit(self, variants: list[str], work: Work, state: dict[str, Tensor], device: str) -> None:
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
    work: Work,
    variants: list[str],
    device: str,
    repeats: int,
    ceilings: dict[str, Ceilings],
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
        ceilings: By dtype of matrix products, those that the device has.
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
        variant: cell.attempt(variant, candidate.row, device, work_flops, ceilings, operators)
        for variant, candidate in list(cell.candidates.items())
    }
    if any('compile' in variant for variant in left):
        # Graphs of this work, and their memory; of one source there may be few.
        torch._dynamo.reset()
    return [
        found.get(variant) or Row(work, variant, refused=cell.refused[variant])
        for variant in variants
    ]
