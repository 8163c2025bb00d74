# SPDX-License-Identifier: Apache-2.0
"""Bytes that operators and kernels read and write."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that read and write no memory: views, and memory that nobody has filled yet.
_FREE = {
    'view',
    '_unsafe_view',
    'permute',
    'transpose',
    't',
    'slice',
    'select',
    'split',
    'split_with_sizes',
    'diagonal',
    'unsqueeze',
    'squeeze',
    'expand',
    'as_strided',
    'alias',
    'detach',
    'device',
    'unfold',
    'unbind',
    'empty',
    'empty_strided',
    'empty_like',
    'new_empty_strided',
    'new_empty',
}


class CountBytes(TorchDispatchMode):
    """Adds up what operators, and kernels that are launched directly, read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.launches = 0

    def add(self, values: Iterable[object]) -> None:
        """Count each tensor among ``values`` once."""
        tensors = {id(value): value for value in values if isinstance(value, Tensor)}
        self.total += sum(tensor.nbytes for tensor in tensors.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run ``func`` and count its tensors, or those of the kernels inside it."""
        launches = self.launches
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in _FREE and launches == self.launches:
            self.add((*args, *(result if isinstance(result, tuple) else (result,))))
        return result

    @contextmanager
    def with_kernels(self) -> Iterator[CountBytes]:
        """Count within this context; not from several threads."""
        if importlib.util.find_spec('triton') is None:
            with self:
                yield self
            return
        from uniformer_mm.ops.triton.launch import Kernel

        launch = Kernel.__call__

        def counted(kernel: Kernel, grid: tuple, tensors: tuple, *rest: object) -> None:
            self.launches += 1
            self.add(tensors)
            launch(kernel, grid, tensors, *rest)

        Kernel.__call__ = counted
        try:
            with self:
                yield self
        finally:
            Kernel.__call__ = launch


def moved_bytes(run: Callable[[], object]) -> float:
    """Bytes that the operators of one step read and write."""
    with CountBytes().with_kernels() as moved:
        run()
    return moved.total
