# SPDX-License-Identifier: Apache-2.0
"""Triton drivers for machines without a GPU: kernels are compiled, or not even that."""

from __future__ import annotations

from types import SimpleNamespace

WARP = 32
SHARED = 232448


class CompileOnly:
    """The part of a Triton driver that compiling needs.

    Args:
        capability: What to compile for; 90 is Hopper.
    """

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget('cuda', capability, WARP)

    def get_current_target(self) -> object:
        """What to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """A device that nothing is launched on."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """A stream that nothing is launched on."""
        return 0


class NothingDriver(CompileOnly):
    """A driver whose launches do nothing, so that their CPU overhead can be timed."""

    launcher_cls = staticmethod(lambda source, metadata: lambda *arguments: None)
    utils = SimpleNamespace(
        load_binary=lambda *arguments: (1, 1, 32, 0, 1024),
        get_device_properties=lambda device: {'max_shared_mem': SHARED},
    )
