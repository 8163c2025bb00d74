# SPDX-License-Identifier: Apache-2.0
"""The one folder outside ``.venv`` that the set-up writes to."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """``uniformer_mm`` in the user's cache."""
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'uniformer_mm'
