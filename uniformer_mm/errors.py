# SPDX-License-Identifier: Apache-2.0
"""Errors that this package adds to ValueError, which a user's other mistakes raise."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Weights that cannot be used; the message names the file, what is wrong and what to do."""


class UnreadableError(ValueError):
    """An image or a clip that cannot be read; the message names it and says why."""
