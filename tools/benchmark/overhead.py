# SPDX-License-Identifier: Apache-2.0
"""CPU overhead of launches and passes, with a driver that launches nothing: no GPU is needed.

Kernels are found, compiled and handed to the driver as on a GPU; what they should have computed is
left in memory as it was. Products and attention are the CPU's own, on maps so small that their
CPU overhead is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch

from uniformer_mm.models import ARCHS

from .drivers import NothingDriver

CAPABILITY = 90
# UniFormer-S but for its channels.
NARROW = {'depths': ARCHS['small'].depths, 'dims': (16, 16, 32, 32), 'head_dim': 32}


def launches() -> dict[str, Callable[[], object]]:
    """One launch of a kernel with many arguments: looked up by this package, and by Triton."""
    import triton

    from uniformer_mm.ops.triton.launch import Constants
    from uniformer_mm.ops.triton.rows import add_branch_kernel as kernel

    triton.runtime.driver.set_active(NothingDriver(CAPABILITY))
    x_NC = torch.zeros(64, 64)
    constants = Constants(C=64, BLOCK_N=32, BLOCK_C=64, num_warps=4)
    call = (2, 1), (x_NC,) * 5, (64, 1), constants, (False, False)
    return {
        'launch, remembered': lambda: kernel.launch(0, *call),
        "launch, Triton's lookup": lambda: kernel.look_up(*call),
    }


def passes() -> dict[str, Callable[[], object]]:
    """Passes of a clip network as deep as UniFormer-S; call them within :func:`as_on_a_gpu`."""
    from uniformer_mm.models import UniFormer3d

    torch.manual_seed(0)
    tested, trained = (UniFormer3d(NARROW, out_indices=(3,), out_norm='bn') for _ in range(2))
    tested.eval()
    trained.train()
    x = torch.randn(1, 3, 4, 64, 64)

    def inference() -> None:
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            tested(x)

    def training() -> None:
        with torch.autocast('cpu', torch.bfloat16):
            (y,) = trained(x)
        y.float().square().mean().backward()

    return {
        'pass in inference': inference,
        'pass and gradients in training': training,
    }


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The fused blocks of GPUs on tensors of the CPU, with kernels that do nothing."""
    import triton

    from uniformer_mm import fast
    from uniformer_mm.fast import door
    from uniformer_mm.ops import dispatch
    from uniformer_mm.ops.triton.launch import Kernel

    def why_not(*_: object) -> None:
        """Always possible."""

    def start(kernel: Kernel, grid, tensors, numbers, constants, flags=()) -> None:
        kernel.launch(0, grid, tensors, numbers, constants, flags)

    rows = {
        operation: tuple(
            replace(row, why_not=why_not) if row.why_not is dispatch.why_not_triton else row
            for row in backends
        )
        for operation, backends in dispatch.BACKENDS.items()
    }
    triton.runtime.driver.set_active(NothingDriver(CAPABILITY))
    with ExitStack() as stack:
        for module in (dispatch, door, fast):
            stack.enter_context(patch.object(module, 'why_not_triton', why_not))
        # Also where a mode counts the operators, or tensors have no memory.
        stack.enter_context(patch.object(door, '_why_not_now', why_not))
        stack.enter_context(patch.dict(dispatch.BACKENDS, rows))
        stack.enter_context(patch.object(Kernel, '__call__', start))
        dispatch.resolve.cache_clear()
        stack.callback(dispatch.resolve.cache_clear)
        yield
