# SPDX-License-Identifier: Apache-2.0
"""Host time of launches, with a driver that compiles and launches nothing: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch

CAPABILITY = 90
SHARED = 232448


class NothingDriver:
    """The part of a Triton driver that a call passes through; its launches do nothing."""

    launcher_cls = staticmethod(lambda source, metadata: lambda *arguments: None)
    utils = SimpleNamespace(
        load_binary=lambda *arguments: (1, 1, 32, 0, 1024),
        get_device_properties=lambda device: {'max_shared_mem': SHARED},
    )

    def get_current_target(self) -> object:
        """What to compile for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget('cuda', CAPABILITY, 32)

    def get_current_device(self) -> int:
        """A device that nothing runs on."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """A stream that nothing runs on."""
        return 0


def launches() -> dict[str, Callable[[], object]]:
    """One launch of a kernel with many arguments: looked up by this package, and by Triton."""
    import triton

    from uniformer_mm.ops import triton_row_kernels
    from uniformer_mm.ops.launch import Constants

    triton.runtime.driver.set_active(NothingDriver())
    kernel = triton_row_kernels.add_branch
    x_NC = torch.zeros(64, 64)
    constants = Constants(C=64, BLOCK_N=32, BLOCK_C=64, num_warps=4)
    call = (2, 1), (x_NC,) * 5, (64, 1), constants, (False, False)
    return {
        'launch, looked up': lambda: kernel._start(0, *call),
        "launch, Triton's lookup": lambda: kernel._run(*call),
    }
