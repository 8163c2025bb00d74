# SPDX-License-Identifier: Apache-2.0
"""The one error of this package."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Weights that cannot be used; the message names the file, what is wrong and what to do."""
