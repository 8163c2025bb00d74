# SPDX-License-Identifier: Apache-2.0
"""Who records what runs: a compiler, which takes our operators, or an exporter, which cannot."""

from __future__ import annotations

import torch

if hasattr(torch.compiler, 'is_compiling'):  # torch 2.3
    is_compiling = torch.compiler.is_compiling
else:
    pass


def _never() -> bool:
    return False


_is_program = getattr(torch.compiler, 'is_exporting', _never)  # torch 2.7


def is_exporting() -> bool:
    """Whether what is recorded runs, or is counted, where no operator of ours is known."""
    return torch.jit.is_tracing() or _is_program()
