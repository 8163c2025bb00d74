# SPDX-License-Identifier: Apache-2.0
"""What the kernels become on Hopper, compiled here without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.ops.conftest import HAS_TRITON
from uniformer_mm.ops.triton.mlp_tiles import mlp_tile

MLP = ('mlp_forward', 'mlp_add', 'mlp_input_grad', 'mlp_weight_grad')

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason='the package triton is not installed')


def survey(*arguments: str) -> list[dict]:
    """What the tool prints, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, 'tools/benchmark/assembly.py', *arguments, '--json'],
        env=environment | {'PYTHONPATH': str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope='module')
def rows() -> dict[str, dict]:
    """The depthwise convolution of stage 3 in bfloat16, by operation."""
    found = survey('--kernel', '3', '3', '3', '--channels', '320')
    return {row['operation']: row for row in found}


@pytest.mark.parametrize('operation', ['forward', 'weight_grad'])
def test_sums_stay_in_registers(rows: dict, operation: str) -> None:
    row = rows[operation]
    assert row['spilled'] == row['stack'] == 0
    assert row['registers'] <= 255
    assert row['multiply_adds'] == row['multiply_adds_needed'], 'work is done twice or not at all'


def test_forward_needs_no_shared_memory_and_reads_each_value_once(rows: dict) -> None:
    row = rows['forward']
    assert row['shared'] == 0, 'a tensor changes its layout on the way'
    patch_h, patch_w, vector, _ = row['tile']
    assert vector == 4
    # Whole vectors: 8 bytes of bfloat16; 16 bytes of float32 taps (one plane) and bias.
    assert row['accesses'] == {
        'LDG.E.64': (patch_h + 2) * (patch_w + 2),
        'LDG.E.128': 3 * 3 + 1,
        'STG.E.64': patch_h * patch_w,
    }


@pytest.fixture(scope='module')
def mlp_rows() -> dict[tuple[str, int], dict]:
    """The MLPs of stages 1 and 2 in bfloat16, by operation and channels."""
    found = survey('--operations', *MLP)
    return {(row['operation'], row['channels']): row for row in found if row['products']}


@pytest.mark.slow
@pytest.mark.parametrize('channels', [64, 128])
@pytest.mark.parametrize('operation', MLP)
def test_mlps_multiply_in_the_tensor_cores_and_stay_in_registers(
    mlp_rows: dict, operation: str, channels: int
) -> None:
    row = mlp_rows[operation, channels]
    # Two registers of the input gradient's address wait in memory for its loop to end.
    assert row['spilled'] <= (4 if operation == 'mlp_input_grad' else 0)
    # One step of the loop, in instructions that add up 16 products.
    tile = mlp_tile(operation.removeprefix('mlp_'), channels, 2)
    needed = {
        'mlp_forward': channels + tile.block_h,
        'mlp_add': channels + tile.block_h,
        'mlp_input_grad': 2 * channels + tile.block_h,
        'mlp_weight_grad': 2 * channels + 2 * tile.block_n,
    }
    assert row['products'] == needed[operation] // 16
    assert row['resident'] == tile.programs, 'the table says how many programs fill a GPU'
    assert row['accesses']['LDGSTS.E.BYPASS.128'], 'products wait for what they read'
    assert row['accesses']['STG.E.128']
