# SPDX-License-Identifier: Apache-2.0
"""How every config loads data: batches in pinned memory, from workers that live on."""

from __future__ import annotations

import pytest
from mmengine import Config

from uniformer_mm.recipes import config_root

from .leaves import LEAVES

SUBMISSIONS = sorted(
    path.relative_to(config_root()).as_posix() for path in config_root().glob('submission/*.py')
)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def loaders(cfg: Config) -> dict[str, dict]:
    """Those that a config has: some only test."""
    return {name: cfg[name] for name in LOADERS if cfg.get(name) is not None}


@pytest.mark.parametrize('leaf', [*LEAVES, *SUBMISSIONS])
def test_workers_live_on_and_batches_are_pinned(leaf: str) -> None:
    """Left out, workers start anew each epoch, and copies to the GPU wait for the host."""
    found = loaders(Config.fromfile(config_root() / leaf))
    assert {'val_dataloader', 'test_dataloader'} <= set(found)
    for name, loader in found.items():
        assert loader.num_workers > 0, name
        assert loader.persistent_workers is True, name
        assert loader.pin_memory is True, name
