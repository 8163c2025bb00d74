# SPDX-License-Identifier: Apache-2.0
"""Which implementation runs an operation, and the sentence that says why one cannot.

The same predicate serves the silent choice (``backend='auto'`` takes the first row without a
reason) and the loud one (an explicit backend that cannot run raises with the reason).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from mmengine.logging import MMLogger

MIN_TORCH = (2, 4)
MIN_CAPABILITY = (8, 0)
# A program unrolls the taps of one plane; beyond this the code and its registers grow too large.
MAX_PLANE_TAPS = 81
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Backend:
    """One implementation of the depthwise operations.

    Attributes:
        name: What users pass as ``backend``.
        module: Module of this package with ``forward``, ``input_grad`` and ``weight_grad``;
            imported when first used.
        why_not: Says why it cannot run for a device, dtype and kernel; None if it can.
    """

    name: str
    module: str
    why_not: Callable[[torch.device, torch.dtype, tuple[int, ...]], str | None]


def triton_is_interpreted() -> bool:
    """Whether Triton kernels run on the CPU through its interpreter (``TRITON_INTERPRET=1``)."""
    return os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'on', 'yes', 'y')


def why_not_triton(device: torch.device, dtype: torch.dtype, kernel: tuple[int, ...]) -> str | None:
    """Why the Triton kernels cannot run, or None.

    Args:
        device: Where the tensors are.
        dtype: Of the input.
        kernel: Extent of the taps per axis.
    """
    torch_version = tuple(int(n) for n in torch.__version__.split('+')[0].split('.')[:2])
    if torch_version < MIN_TORCH:
        return f'torch {torch.__version__} is older than {".".join(map(str, MIN_TORCH))}'
    if importlib.util.find_spec('triton') is None:
        return 'the package triton is not installed'
    if dtype not in TRITON_DTYPES:
        return f'dtype {dtype} is not one of {[str(d) for d in TRITON_DTYPES]}'
    if kernel[-1] * kernel[-2] > MAX_PLANE_TAPS:
        return f'kernel {kernel} has more than {MAX_PLANE_TAPS} taps in a plane'
    if triton_is_interpreted():
        return None
    if device.type != 'cuda':
        return f'device {device} is not a GPU and TRITON_INTERPRET is not set'
    if torch.version.cuda and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        found = '.'.join(map(str, torch.cuda.get_device_capability(device)))
        return f'compute capability {found} is below {".".join(map(str, MIN_CAPABILITY))}'
    return None


def why_not_framework(
    device: torch.device, dtype: torch.dtype, kernel: tuple[int, ...]
) -> str | None:
    """None: the framework's own operators run wherever the framework does."""
    return None


BACKENDS: tuple[Backend, ...] = (
    Backend('triton', 'triton_depthwise', why_not_triton),
    Backend('framework', 'framework', why_not_framework),
)


@functools.cache
def resolve(
    backend: str, device: torch.device, dtype: torch.dtype, kernel: tuple[int, ...]
) -> ModuleType:
    """The module that runs, for one kind of call; remembered, so that it costs nothing per call.

    Args:
        backend: A name of :data:`BACKENDS` or ``'auto'``.
        device: Where the tensors are.
        dtype: Of the input.
        kernel: Extent of the taps per axis.

    Raises:
        ValueError: The backend is not known or cannot run here; the reason is in the message.
    """
    names = ['auto', *(row.name for row in BACKENDS)]
    if backend not in names:
        raise ValueError(f'backend={backend!r} is not known; use one of {names}.')
    logger = MMLogger.get_current_instance()
    for row in BACKENDS:
        if backend not in ('auto', row.name):
            continue
        reason = row.why_not(device, dtype, kernel)
        if reason is None:
            logger.debug('depthwise_conv %s %s %s: %s', device, dtype, kernel, row.name)
            return importlib.import_module(f'{__package__}.{row.module}')
        if backend == row.name:
            raise ValueError(
                f"backend={backend!r} cannot run: {reason}; use backend='auto' or another of "
                f'{names[1:]}.'
            )
        logger.debug('depthwise_conv: not %s, because %s', row.name, reason)
    raise AssertionError('the framework runs everywhere')
