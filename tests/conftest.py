# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the repository's root, the shared reference data, their threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# An hourglass network that costs little, for the toolboxes' models.
SMALL_LIGHT = {
    'depths': (1, 1, 2, 1),
    'dims': (16, 16, 32, 32),
    'head_dim': 16,
    'stem': 'conv',
    'keep_ratios': ((1, 0.5), (0.5,)),
}


def shared_dir(*parts: str) -> Path:
    """A path in the shared reference data; skips the test where it is absent.

    The data lies beside the repository, or where ``UNIFORMER_SHARED`` says.
    """
    path = Path(os.environ.get('UNIFORMER_SHARED', ROOT.parent / 'shared'), *parts)
    if not path.exists():
        pytest.skip(f'reference data {"/".join(parts)} is not there; set UNIFORMER_SHARED')
    return path


def pytest_configure() -> None:
    """Two threads, or one where test processes run beside each other; children inherit it."""
    threads = 1 if 'PYTEST_XDIST_WORKER' in os.environ else 2
    os.environ['OMP_NUM_THREADS'] = str(threads)
    torch.set_num_threads(threads)
