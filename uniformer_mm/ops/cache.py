# SPDX-License-Identifier: Apache-2.0
"""Where this package keeps what it found out about a machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``UNIFORMER_MM_CACHE``, or a folder of ours in the user's cache (``XDG_CACHE_HOME``)."""
    user = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('UNIFORMER_MM_CACHE') or Path(user, 'uniformer_mm'))
