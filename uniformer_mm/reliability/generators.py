# SPDX-License-Identifier: Apache-2.0
"""The random generators of a process: what they hold, and seeds for one sample."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def capture(gpu: bool = True) -> dict:
    """The state of Python's, NumPy's, PyTorch's and the current GPU's generator, as plain values.

    Args:
        gpu: Whether the GPU's is wanted, which waits for the GPU.

    Returns:
        Numbers, text, lists and CPU tensors only, so that a checkpoint holds it without any class.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        'python': [version, list(words), gauss],
        'numpy': [str(kind), torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        'torch': torch.get_rng_state(),
    }
    if gpu and torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore(state: dict) -> None:
    """Set all generators to what :func:`capture` returned.

    Raises:
        ValueError: It holds something else.
    """
    try:
        version, words, gauss = state['python']
        random.setstate((version, tuple(words), gauss))
        kind, keys, position, has_gauss, cached = state['numpy']
        numbers = np.array(keys.tolist(), dtype=np.uint32)
        np.random.set_state((kind, numbers, position, has_gauss, cached))
        torch.set_rng_state(state['torch'].cpu())
        if 'cuda' in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state['cuda'].cpu())
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f'the random state of the checkpoint cannot be restored ({error}); expected what '
            'uniformer_mm saves in every rank.'
        ) from error


def seed_for(*position: int) -> int:
    """A 64-bit seed for a position in a run: its seed, rank, epoch, batch and place.

    Hashed, so that neighbours have nothing in common.
    """
    digest = hashlib.blake2b(repr(position).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's CPU generator (GPUs are not used by transforms)."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.default_generator.manual_seed(seed)
