# SPDX-License-Identifier: Apache-2.0
"""What is measured: task, arch, attention, size, dtype and mode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniformer_mm.models import ARCHS

MODES = ('inference', 'training')
DTYPES = ('float32', 'bfloat16', 'float16')
ATTENTIONS = ('global', 'window', 'hybrid', 'divided')


@dataclass(frozen=True)
class Task:
    """One kind of work.

    Attributes:
        rank: 2 or 3.
        dense: Whether all four stages are returned.
        attention: Its usual attention.
        cpu_shape: Batch, (frames,) height, width for a processor.
        cuda_shape: The same for a GPU: the baselines of the project.
    """

    rank: int
    dense: bool
    attention: str
    cpu_shape: tuple[int, ...]
    cuda_shape: tuple[int, ...]


TASKS = {
    'image': Task(2, False, 'global', (8, 224, 224), (256, 224, 224)),
    'dense': Task(2, True, 'hybrid', (1, 800, 1280), (4, 800, 1280)),
    'video': Task(3, False, 'global', (1, 16, 224, 224), (16, 16, 224, 224)),
}


def usual_attention(task: str, arch: str) -> str:
    """The task's, or what a light arch has, which is one kind only."""
    return 'global' if ARCHS[arch].keep_ratios else TASKS[task].attention


@dataclass(frozen=True)
class Workload:
    """One cell of the table."""

    arch: str
    task: str
    attention: str
    shape: tuple[int, ...]
    dtype: str
    mode: str

    def __str__(self) -> str:
        size = 'x'.join(map(str, self.shape))
        return f'{self.task} {self.arch} {self.attention} {size} {self.dtype} {self.mode}'

    def sample(self, device: str) -> Tensor:
        """A random input."""
        batch, *size = self.shape
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, *size, generator=generator).to(device)
