# SPDX-License-Identifier: Apache-2.0
"""One tiny synthetic world for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniformer_mm.synth import make_data


@pytest.fixture(scope='session')
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task, seed 0. Tests must not write into it."""
    root = tmp_path_factory.mktemp('synth') / 'data'
    make_data(root, size='tiny', workers=2)
    return root
