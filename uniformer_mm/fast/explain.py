# SPDX-License-Identifier: Apache-2.0
"""Which form each block of a model takes, and why."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..ops.dispatch import why_not_triton
from .door import why_not


class Path(NamedTuple):
    """The form that one block takes.

    Attributes:
        name: Of the block in the model.
        kind: Its class.
        path: ``'fused'`` (Triton kernels), ``'cpu'`` (the fast form of a CPU) or ``'plain'``.
        reason: Why it is plain, in one sentence; else empty.
    """

    name: str
    kind: str
    path: str
    reason: str


def _is_block(module: nn.Module) -> bool:
    return {'pos_embed', 'drop_path', 'mlp'} <= module._modules.keys()


def explain_speed(model: nn.Module, x: Any, *, show: bool = True) -> list[Path]:
    """Run a model once and tell which form each of its blocks took, and why.

    Nothing in the model changes: in training a copy of it runs, because a pass updates running
    statistics. Gradients are recorded as they are outside of this call, and autocast counts.

    Args:
        model: A UniFormer, or a model with one inside, on its device and in its mode.
        x: What it is called with.
        show: Whether to print a table.

    Returns:
        A row for each block that ran, in the order in which they did.

    Raises:
        ValueError: The model has no block of ours.
    """
    if any(module.training for module in model.modules()):
        model = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules() if _is_block(module)}
    if not names:
        raise ValueError(
            f'{type(model).__name__} has no UniFormer block; give a backbone or a model with one.'
        )
    paths: list[Path] = []

    def note(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        paths.append(_path(names[block], block, inputs[0]))

    handles = [block.register_forward_pre_hook(note) for block in names]
    try:
        with torch.random.fork_rng(_devices(model)):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if show:
        _print(paths)
    return paths


def _devices(model: nn.Module) -> list[torch.device]:
    return [*{p.device for p in model.parameters() if p.is_cuda}]


def _path(name: str, block: nn.Module, x: Tensor) -> Path:
    kind = type(block).__name__
    if hasattr(block, 'keep_ratio'):
        return Path(name, kind, 'plain', 'hourglass blocks choose tokens and have no other form')
    reason = why_not(block, x)
    if reason is not None:
        return Path(name, kind, 'plain', reason)
    return Path(name, kind, 'fused' if why_not_triton(x.device, x.dtype) is None else 'cpu', '')


def _print(paths: list[Path]) -> None:
    from rich.table import Table

    from ..console import table_console

    table = Table('block', 'kind', 'path', 'why')
    for path in paths:
        table.add_row(*path)
    table_console().print(table)
