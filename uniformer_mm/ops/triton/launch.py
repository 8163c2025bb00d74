# SPDX-License-Identifier: Apache-2.0
"""How the Triton kernels are launched, and what all launches need to know of a device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..dispatch import triton_is_interpreted

CPU_PROCESSORS = 1
# From here on a compiled kernel takes its compile-time constants too, in the order of its source.
TAKES_CONSTANTS = tuple(int(n) for n in triton.__version__.split('.')[:2]) >= (3, 3)
# For AMD GPUs Triton also looks at how large the memory of each tensor is.
CAN_REMEMBER = TAKES_CONSTANTS and not torch.version.hip
# What Triton specialises a kernel on: addresses that are multiples of 16, integers of 32 bits.
ALIGNED = 15
MAX_INT32 = 2**31 - 1
ONES = (1, 1, 1)


class Constants(dict):
    """Compile-time constants of a kernel, and its options, by name.

    Equal to itself only, so that looking something up by it costs nothing: keep and reuse it.
    """

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class Kernel:
    """A Triton kernel whose calls after the first cost little CPU time.

    Triton finds the compiled form of each call from all its arguments, which takes about as long as
    the rest of a launch. Here it is remembered by what can differ: the constants, the flags and
    the dtypes. A call with an odd address or a huge integer goes Triton's way.

    Args:
        function: Tensors first, then numbers (integers, none of them specialised on, and floats,
            of which an integer would be another type), then compile-time constants.
        flags: Names of the constants that each call gives by itself.
    """

    def __init__(self, function: Any, flags: Sequence[str] = ()) -> None:
        self.function = function
        self.flags = tuple(flags)
        self._compiled: dict[tuple, tuple[Any, tuple]] = {}
        functools.update_wrapper(self, function.fn)

    def __call__(
        self,
        grid: tuple[int, ...],
        tensors: tuple[Tensor, ...],
        numbers: tuple[int | float, ...],
        constants: Constants,
        flags: tuple = (),
    ) -> None:
        """Launch on the device and current stream of the first tensor.

        Args:
            grid: Programs along up to three axes.
            tensors: On one device.
            numbers: What the map's size decides.
            constants: Values of all constants but the flags; options such as ``num_warps``.
            flags: Values of the flags, in their order.
        """
        index = tensors[0].get_device()
        if index < 0:
            self.look_up(grid, tensors, numbers, constants, flags)
        elif index == torch.cuda.current_device():
            self.launch(index, grid, tensors, numbers, constants, flags)
        else:
            # Kernels start on the current device, which need not be the tensors'.
            with torch.cuda.device(index):
                self.launch(index, grid, tensors, numbers, constants, flags)

    def look_up(self, grid, tensors, numbers, constants, flags) -> Any:
        """Launch as in Triton's tutorials; returns the compiled form."""
        values = dict(zip(self.flags, flags, strict=True))
        return self.function[grid](*tensors, *numbers, **constants, **values)

    def launch(self, index, grid, tensors, numbers, constants, flags) -> None:
        """Launch on the current device, whose number is ``index``, in the remembered form."""
        key = (index, constants, flags, *[tensor.dtype for tensor in tensors])
        found = self._compiled.get(key)
        plain = max(numbers, default=0) <= MAX_INT32
        for tensor in tensors:
            if tensor.data_ptr() & ALIGNED:
                plain = False
        if found is not None and plain:
            compiled, values = found
            compiled[(*grid, *ONES[len(grid) :])](*tensors, *numbers, *values)
            return
        compiled = self.look_up(grid, tensors, numbers, constants, flags)
        if plain and CAN_REMEMBER and compiled is not None and not triton_is_interpreted():
            values = {**constants, **dict(zip(self.flags, flags, strict=True))}
            rest = self.function.arg_names[len(tensors) + len(numbers) :]
            self._compiled[key] = compiled, tuple(values[name] for name in rest)


def kernel(flags: Sequence[str] = (), **options: Any) -> Callable[[Callable], Kernel]:
    """Decorator: compile a function of Triton's language when it is first launched.

    Args:
        flags: See :class:`Kernel`.
        **options: Of ``triton.jit``.
    """
    return lambda function: Kernel(triton.jit(**options)(function), flags)


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 in the interpreter."""
    if device.type != 'cuda':
        return CPU_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def power_of_two(n: int) -> int:
    """The smallest one that is not below ``n``; Triton's tiles have no other sizes."""
    return 1 << max(n - 1, 0).bit_length()


def float32(x: Tensor, *shape: int) -> Tensor:
    """Uninitialised memory on the device of ``x``."""
    return x.new_empty(*shape, dtype=torch.float32)
