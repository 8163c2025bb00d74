# SPDX-License-Identifier: Apache-2.0
"""Whether a variant computes what the reference does: outputs, statistics, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from uniformer_mm.models import ARCHS

from .variants import build, trunk
from .workloads import Workload

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
    def of(cls, work: Workload, state: dict[str, Tensor], device: str) -> Truth:
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
