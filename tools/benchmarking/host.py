# SPDX-License-Identifier: Apache-2.0
"""Host time of launches, with a driver that compiles and launches nothing: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .drivers import NothingDriver

CAPABILITY = 90


def launches() -> dict[str, Callable[[], object]]:
    """One launch of a kernel with many arguments: looked up by this package, and by Triton."""
    import triton

    from uniformer_mm.ops import triton_row_kernels
    from uniformer_mm.ops.launch import Constants

    triton.runtime.driver.set_active(NothingDriver(CAPABILITY))
    kernel = triton_row_kernels.add_branch
    x_NC = torch.zeros(64, 64)
    constants = Constants(C=64, BLOCK_N=32, BLOCK_C=64, num_warps=4)
    call = (2, 1), (x_NC,) * 5, (64, 1), constants, (False, False)
    return {
        'launch, looked up': lambda: kernel._start(0, *call),
        "launch, Triton's lookup": lambda: kernel._run(*call),
    }
