# SPDX-License-Identifier: Apache-2.0
"""Without a GPU the kernel tests run in Triton's interpreter, in a process of their own.

Triton decides when it is imported, for the whole process, and with the interpreter on, every
network of the other tests would run through it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import HAS_TRITON, INTERPRETED

FOLDER = Path(__file__).parent
FILES = (
    'test_depthwise_triton.py',
    'test_mlp_triton.py',
    'test_rows_triton.py',
    '../fast/test_blocks_triton.py',
)


@pytest.mark.skipif(not HAS_TRITON, reason='the package triton is not installed')
@pytest.mark.skipif(INTERPRETED, reason='this is that process')
@pytest.mark.skipif(torch.cuda.is_available(), reason='the kernels run on the GPU')
@pytest.mark.parametrize('file', FILES)
def test_kernels_in_the_interpreter(file: str) -> None:
    command = [sys.executable, '-m', 'pytest', '-m', 'not gpu and not slow', str(FOLDER / file)]
    done = subprocess.run(
        command,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ' passed' in done.stdout
    assert 'skipped' not in done.stdout, 'the interpreter was not on'
