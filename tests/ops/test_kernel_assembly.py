# SPDX-License-Identifier: Apache-2.0
"""What the kernels become on Hopper, compiled here without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

from .conftest import HAS_TRITON

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason='the package triton is not installed')


@pytest.fixture(scope='module')
def rows() -> dict[str, dict]:
    """The depthwise convolution of stage 3 in bfloat16, by operation."""
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    command = [sys.executable, 'tools/kernel_assembly.py', '--kernel', '3', '3', '3']
    done = subprocess.run(
        [*command, '--channels', '320', '--json'],
        env=environment | {'PYTHONPATH': str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {row['operation']: row for row in json.loads(done.stdout)}


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
