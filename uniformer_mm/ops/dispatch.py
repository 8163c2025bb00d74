# SPDX-License-Identifier: Apache-2.0
"""Which implementation runs an operation, and the sentence that says why one cannot.

The same predicate serves the silent choice (``backend='auto'`` takes the first row without a
reason) and the loud one (an explicit backend that cannot run raises with the reason).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch

MIN_TORCH = (2, 4)
MIN_CAPABILITY = (8, 0)
# A program unrolls the taps of one plane; beyond this the code and its registers grow too large.
MAX_PLANE_TAPS = 81
# A program keeps whole rows of the input and of the sums of the output on chip.
MAX_MLP_CHANNELS = 128
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """One implementation of an operation.

    Attributes:
        name: What users pass as ``backend``.
        module: Module of this package that holds it; imported when first used.
        why_not: Says why it cannot run for a device, a dtype and what else the operation tells
            (:data:`BACKENDS`); None if it can.
    """

    name: str
    module: str
    why_not: Callable[..., str | None]


def triton_is_interpreted() -> bool:
    """Whether Triton kernels run on the CPU through its interpreter (``TRITON_INTERPRET=1``)."""
    return os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'on', 'yes', 'y')


def torch_version() -> tuple[int, ...]:
    """Major and minor number of PyTorch's release."""
    return tuple(int(n) for n in torch.__version__.split('+')[0].split('.')[:2])


def why_not_triton(device: torch.device, dtype: torch.dtype, *_: object) -> str | None:
    """Why no Triton kernel can run, or None.

    Args:
        device: Where the tensors are.
        dtype: Of the input.
    """
    return _why_not_triton(device, dtype, triton_is_interpreted())


@functools.cache
def _why_not_triton(device: torch.device, dtype: torch.dtype, interpreted: bool) -> str | None:
    if torch_version() < MIN_TORCH:
        return f'torch {torch.__version__} is older than {".".join(map(str, MIN_TORCH))}'
    if importlib.util.find_spec('triton') is None:
        return 'the package triton is not installed'
    if dtype not in TRITON_DTYPES:
        return f'dtype {dtype} is not one of {[str(d) for d in TRITON_DTYPES]}'
    if interpreted:
        return None
    if device.type != 'cuda':
        return f'device {device} is not a GPU and TRITON_INTERPRET is not set'
    if torch.version.cuda and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        found = '.'.join(map(str, torch.cuda.get_device_capability(device)))
        return f'compute capability {found} is below {".".join(map(str, MIN_CAPABILITY))}'
    return None


def why_not_triton_depthwise(
    device: torch.device, dtype: torch.dtype, kernel: tuple[int, ...]
) -> str | None:
    """Why the depthwise kernels cannot run, or None; ``kernel`` is the extent of the taps."""
    if kernel[-1] * kernel[-2] > MAX_PLANE_TAPS:
        return f'kernel {kernel} has more than {MAX_PLANE_TAPS} taps in a plane'
    return why_not_triton(device, dtype)


def why_not_triton_mlp(
    device: torch.device, dtype: torch.dtype, channels: int, outputs: int
) -> str | None:
    """Why the MLP kernels cannot run for these input and output channels, or None."""
    if max(channels, outputs) > MAX_MLP_CHANNELS:
        return f'{max(channels, outputs)} channels are more than {MAX_MLP_CHANNELS}'
    return why_not_triton(device, dtype)


def why_not_pytorch(*_: object) -> str | None:
    """None: PyTorch's own operators run everywhere."""
    return None


# By operation, in the order in which they are tried; the comment says what is told beside device
# and dtype.
BACKENDS: dict[str, tuple[Backend, ...]] = {
    # The extent of the taps per axis.
    'depthwise_conv': (
        Backend('triton', 'triton.depthwise', why_not_triton_depthwise),
        Backend('pytorch', 'torch.depthwise', why_not_pytorch),
    ),
    # Input and output channels.
    'mlp': (
        Backend('triton', 'triton.mlp', why_not_triton_mlp),
        Backend('pytorch', 'torch.mlp', why_not_pytorch),
    ),
    # All of rows.py; nothing more is told.
    'rows': (
        Backend('triton', 'triton.rows', why_not_triton),
        Backend('pytorch', 'torch.rows', why_not_pytorch),
    ),
}


@functools.cache
def resolve(
    operation: str, backend: str, device: torch.device, dtype: torch.dtype, *details: object
) -> ModuleType:
    """The module that runs, for one kind of call; remembered, so that it costs nothing per call.

    Args:
        operation: A key of :data:`BACKENDS`.
        backend: A name of its rows or ``'auto'``.
        device: Where the tensors are.
        dtype: Of the input.
        *details: What else the operation tells its backends.

    Raises:
        ValueError: The backend is not known or cannot run here; the reason is in the message.
    """
    rows = BACKENDS[operation]
    names = ['auto', *(row.name for row in rows)]
    if backend not in names:
        raise ValueError(f'backend={backend!r} is not known; use one of {names}.')
    for row in rows:
        if backend not in ('auto', row.name):
            continue
        reason = row.why_not(device, dtype, *details)
        if reason is None:
            logger.debug('%s %s %s %s: %s', operation, device, dtype, details, row.name)
            return importlib.import_module(f'{__package__}.{row.module}')
        if backend == row.name:
            raise ValueError(
                f"backend={backend!r} cannot run: {reason}; use backend='auto' or another of "
                f'{names[1:]}.'
            )
        logger.debug('%s: not %s, because %s', operation, row.name, reason)
    raise AssertionError('PyTorch runs everywhere')
