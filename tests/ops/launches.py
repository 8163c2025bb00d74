# SPDX-License-Identifier: Apache-2.0
"""What Triton's own launcher hands to the CUDA driver, where the driver is ``deaf_driver.c``.

    python tests/ops/launches.py path/of/libcuda.so.1

A process of its own: PyTorch would take that driver for a GPU's. Each kernel of the package is
launched as Triton does it and as :class:`~uniformer_mm.ops.triton.launch.Kernel` does afterwards;
one line of JSON tells what arrived each time, and what should have.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import Any

import torch
import triton
from triton.backends.nvidia.driver import CudaDriver

from tools.benchmark.assembly import (
    MLP_OPERATIONS,
    OPERATIONS,
    depthwise_call,
    mlp_calls,
    row_calls,
)
from tools.benchmark.drivers import CompileOnly
from uniformer_mm.ops.triton.launch import Kernel

STREAM = 0x70
# Triton's, of a program.
DEFAULT_WARPS = 4
# struct's letters of a parameter, by Triton's name of its type; those of addresses begin with '*'.
LETTERS = {'i32': 'i', 'i64': 'q', 'fp32': 'f'}


class Config(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ('grid', ctypes.c_uint * 3),
        ('block', ctypes.c_uint * 3),
        ('shared', ctypes.c_uint),
        ('stream', ctypes.c_void_p),
        ('attributes', ctypes.c_void_p),
        ('number_of_attributes', ctypes.c_uint),
    )


LISTENER = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(Config), ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
)


class Hopper(CudaDriver):
    """Triton's driver, where it would ask PyTorch about a GPU."""

    def __init__(self) -> None:
        super().__init__()
        hopper = CompileOnly(90)
        self.get_current_device = hopper.get_current_device
        self.get_current_target = hopper.get_current_target
        self.get_current_stream = lambda device: STREAM


def listen_to(driver: ctypes.CDLL) -> tuple[list[dict], list[str]]:
    """What launches bring, and the types by which to read their parameters."""
    found, types = [], []

    def hear(config: Any, function: int, params: Any) -> None:
        launch = config.contents
        values = []
        for i, kind in enumerate(types):
            letter = 'Q' if kind.startswith('*') else LETTERS[kind]
            data = ctypes.string_at(params[i], struct.calcsize(letter))
            values.append(struct.unpack(letter, data)[0])
        found.append(
            {
                'function': function,
                'grid': list(launch.grid),
                'block': list(launch.block),
                'shared': launch.shared,
                'stream': launch.stream,
                'attributes': launch.number_of_attributes,
                'params': values,
            }
        )

    driver.hear = LISTENER(hear)
    driver.listen(driver.hear)
    return found, types


def main(path: str) -> None:
    """Print a line for each launch of each kernel."""
    # By now the linker knows the library that Triton's launcher asks for.
    driver = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    found, types = listen_to(driver)
    triton.runtime.driver.set_active(Hopper())

    def launch(kernel, grid, tensors, numbers, constants, flags=()) -> None:
        types.clear()
        call = grid, tensors, numbers, constants, flags
        compiled = kernel.look_up(*call)
        types.extend(kind for kind in compiled.src.signature.values() if kind != 'constexpr')
        found.clear()
        kernel.look_up(*call)
        kernel.launch(0, *call)
        # From here on Triton is not asked.
        look_up, kernel.look_up = kernel.look_up, None
        kernel.launch(0, *call)
        kernel.look_up = look_up
        line = {
            'kernel': kernel.__name__,
            'grid': [*grid, 1, 1][:3],
            'threads': 32 * constants.get('num_warps', DEFAULT_WARPS),
            'params': [*(tensor.data_ptr() for tensor in tensors), *numbers],
            'launches': found,
        }
        sys.stdout.write(json.dumps(line) + '\n')

    Kernel.__call__ = launch
    bfloat16 = torch.bfloat16
    for kernel in ((3, 3), (5, 5, 5)):
        for operation in OPERATIONS:
            depthwise_call(operation, kernel, 64, bfloat16, None)()
    mlps = mlp_calls(64, 256, bfloat16)
    for operation in MLP_OPERATIONS:
        mlps[operation]()
    for call in row_calls(64, bfloat16).values():
        call()


if __name__ == '__main__':
    main(sys.argv[1])
