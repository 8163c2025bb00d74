# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm doctor --gpu``: every fused block on this GPU beside its plain form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from ..console import table_console
from ..fast import attention, local, verify
from ..models.arch import resolve_arch
from ..models.blocks import DividedBlock, GlobalBlock, LocalBlock
from ..ops.dispatch import why_not_triton

ARCH = 'small'
WINDOW_SIZE = 14
# Sides of a stage's map for images of 224 pixels, frames for clips of 16, samples.
SIDES, FRAMES, SAMPLES = (56, 28, 14, 7), 8, 8
# The dtypes of matrix multiplications; the residual stream is float32.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SECONDS_PER_TIME = 0.1


@dataclass(frozen=True)
class BlockRow:
    """One kind of block in one dtype.

    Attributes:
        block: Kind, channels and dtypes.
        ok: Whether the fused form is right.
        verdict: What is wrong with it; empty if nothing is.
        excess: Its largest error in multiples of what is allowed.
        fused_ms: Milliseconds of its training step, forward and backward; None if not timed.
        plain_ms: Those of the plain form.
    """

    block: str
    ok: bool
    verdict: str
    excess: float
    fused_ms: float | None
    plain_ms: float | None


def blocks_of(arch: str = ARCH) -> Iterator[tuple[nn.Module, tuple[int, ...]]]:
    """Every kind of block of an architecture, 2-D and 3-D, and the shape of its map."""
    table = resolve_arch(arch)
    for stage, (channels, side) in enumerate(zip(table.dims, SIDES, strict=True)):
        for ndim in (2, 3):
            shape = (SAMPLES, channels, *(FRAMES,) * (ndim - 2), side, side)
            if stage < 2:
                yield LocalBlock(ndim, channels, table.mlp_ratio), shape
                continue
            arguments = ndim, channels, table.head_dim, table.mlp_ratio
            yield GlobalBlock(*arguments), shape
            if ndim == 2 and stage == 2:
                yield GlobalBlock(*arguments, window_size=WINDOW_SIZE), shape
            if ndim == 3:
                yield DividedBlock(*arguments), shape


def verify_all(
    device: torch.device | str,
    blocks: Callable[[], Iterator[tuple[nn.Module, tuple[int, ...]]]] = blocks_of,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    timed: bool = True,
) -> list[BlockRow]:
    """Compare and time every kind of block; verdicts go into the user's record.

    Args:
        device: A GPU, or a CPU for tests.
        blocks: Gives blocks and the shapes of their maps.
        dtypes: Of matrix multiplications.
        timed: Whether to time the two forms on those maps.

    Returns:
        A row for each of them in each dtype.
    """
    device = torch.device(device)
    if device.type == 'cuda' and device.index is None:
        device = torch.device('cuda', torch.cuda.current_device())
    rows = []
    for block, shape in blocks():
        block = block.to(device).train()
        layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        x = torch.randn(shape, device=device).to(memory_format=layout).requires_grad_()
        for dtype in dtypes:
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                structure = verify.structure_of(block, x)
                found = verify.verify(block, structure)
                times = (None, None)
                if timed and found.verdict is None:
                    form = local.local_block if structure.kind == 'local' else _attention_block
                    times = _milliseconds(form, block, x), _milliseconds(_plain, block, x)
            verdict = found.verdict or ''
            rows.append(BlockRow(str(structure), not verdict, verdict, found.ratio, *times))
    return rows


def _attention_block(block: nn.Module, x: Tensor) -> Tensor:
    return attention.attention_block(block, x)


def _plain(block: nn.Module, x: Tensor) -> Tensor:
    with verify.plain_form():
        return block(x)


def _milliseconds(
    form: Callable[[nn.Module, Tensor], Tensor], block: nn.Module, x: Tensor
) -> float:
    def step() -> None:
        form(block, x).float().square().mean().backward()

    timer = Timer('step()', globals={'step': step})
    return 1000 * timer.blocked_autorange(min_run_time=SECONDS_PER_TIME).median


def check_gpu() -> int:
    """Print the table for this machine's GPU; returns how many blocks are not right.

    Raises:
        ValueError: There is no GPU that the kernels run on.
    """
    if not torch.cuda.is_available():
        raise ValueError('--gpu: PyTorch finds no GPU here; run this on the machine that has one.')
    device = torch.device('cuda', torch.cuda.current_device())
    reason = why_not_triton(device, torch.float32)
    if reason is not None:
        raise ValueError(f'--gpu: the kernels cannot run, {reason}; blocks run in plain PyTorch.')
    rows = verify_all(device)
    print_rows(rows, f'{torch.cuda.get_device_name(device)}, training step of each block')
    return sum(not row.ok for row in rows)


def print_rows(rows: list[BlockRow], title: str) -> None:
    """Print rows as a table."""
    table = Table('block', 'fused form', 'error, of what is allowed', title=title)
    for name in ('fused, ms', 'plain, ms', 'speed-up'):
        table.add_column(name, justify='right')
    for row in rows:
        times = ('', '', '')
        if row.fused_ms is not None:
            ratio = row.plain_ms / row.fused_ms
            times = (f'{row.fused_ms:.3f}', f'{row.plain_ms:.3f}', f'{ratio:.2f}')
        table.add_row(row.block, row.verdict or 'right', f'{row.excess:.2f}', *times)
    table_console().print(table)
