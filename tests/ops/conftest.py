# SPDX-License-Identifier: Apache-2.0
"""What the kernel tests share: where kernels run, poisoned fresh memory, the error rule."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

GUARD = 64
HAS_TRITON = importlib.util.find_spec('triton') is not None
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'

needs_kernels = pytest.mark.skipif(
    not HAS_TRITON or not (INTERPRETED or torch.cuda.is_available()),
    reason='kernels need a GPU or TRITON_INTERPRET=1; test_interpreter.py runs these so',
)

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason='needs a GPU: the interpreter, which has shown the small cases, would take hours',
)


@pytest.fixture
def device() -> str:
    """Kernels run on the GPU where there is one, else on the CPU in the interpreter."""
    return 'cpu' if INTERPRETED else 'cuda'


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Fresh memory is NaN, and so are guards around it, which must be NaN afterwards."""
    buffers: list[Tensor] = []
    empty = torch.empty

    def poison(*size, dtype=None, device=None, **_) -> Tensor:
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        dtype = dtype or torch.get_default_dtype()
        count = int(np.prod(shape))
        buffer = empty(count + 2 * GUARD, dtype=dtype, device=device).fill_(float('nan'))
        buffers.append(buffer)
        return buffer[GUARD : GUARD + count].view(*shape)

    def poison_new(x: Tensor, *size, dtype=None, device=None, **_) -> Tensor:
        dtype, device = dtype or x.dtype, device or x.device
        # The interpreter's own is of no elements or, for tables, of integers.
        plain = size == (0,) or not dtype.is_floating_point
        return (empty if plain else poison)(*size, dtype=dtype, device=device)

    monkeypatch.setattr(torch, 'empty', poison)
    monkeypatch.setattr(torch, 'empty_like', lambda x, **kwargs: poison_new(x, x.shape, **kwargs))
    monkeypatch.setattr(Tensor, 'new_empty', poison_new)
    yield buffers
    assert buffers, 'nothing was allocated as fresh memory: the poison tested nothing'
    for buffer in buffers:
        assert buffer[:GUARD].isnan().all(), 'written before the start of a tensor'
        assert buffer[-GUARD:].isnan().all(), 'written behind the end of a tensor'


@pytest.fixture(autouse=True)
def _rounds_as_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter truncates float32 to bfloat16; GPUs round to nearest, ties to even."""
    if not (INTERPRETED and HAS_TRITON):
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def rounding(self, src, dst_type):
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        rounded = torch.from_numpy(np.ascontiguousarray(src.data)).to(torch.bfloat16)
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), dst_type.scalar)

    monkeypatch.setattr(InterpreterBuilder, 'cast_impl', rounding)
    monkeypatch.setattr(
        InterpreterBuilder, 'create_fp_trunc', lambda self, src, dst: self.cast_impl(src, dst)
    )
