# SPDX-License-Identifier: Apache-2.0
"""Blocks and networks on the Triton kernels, in the interpreter on tiny ones and on a GPU.

``tests/ops/test_interpreter.py`` runs this file where there is no GPU.
"""

from __future__ import annotations

import pytest
import torch

from tests.models.test_golden import CASES as GOLDEN_CASES
from tests.models.test_golden import TOLERANCE, build, load_case, relative_errors
from tests.ops.conftest import _rounds_as_hardware, device, needs_gpu, needs_kernels  # noqa: F401
from uniformer_mm.env.gpu import verify_all
from uniformer_mm.fast import verify
from uniformer_mm.models.blocks import DividedBlock, GlobalBlock, LocalBlock

pytestmark = needs_kernels

BLOCKS = {
    'local': lambda: LocalBlock(2, 16, 2, layer_scale=0.3),
    'window': lambda: GlobalBlock(2, 16, 8, 2, window_size=2),
    # Channels above 128 keep the hidden map.
    'wide': lambda: GlobalBlock(2, 136, 68, 1),
    'divided': lambda: DividedBlock(3, 16, 8, 2, drop_path=0.3),
}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_are_right(
    name: str,
    dtype: torch.dtype,
    device: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forward and backward, in training and in evaluation."""
    monkeypatch.setattr(verify, 'ROWS', 3)
    monkeypatch.setattr(verify, 'COLUMNS', 4)
    block = BLOCKS[name]().to(device)
    x = torch.zeros(1, block.norm1.weight.shape[0], *(1,) * block.pos_embed.weight[0, 0].ndim)
    with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        structure = verify.structure_of(block, x.to(device))
        assert verify.compare(block, structure).verdict is None


@pytest.mark.gpu
@needs_gpu
def test_every_block_of_small_is_right() -> None:
    assert [row.verdict for row in verify_all('cuda', timed=False) if not row.ok] == []


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize('name', GOLDEN_CASES)
def test_golden_outputs(name: str) -> None:
    """The released networks', through the kernels."""
    case, outputs, fill = load_case(name)
    errors = relative_errors(build(case, fill).float().cuda(), case, outputs, fill)
    assert max(errors) <= TOLERANCE[torch.float32]
