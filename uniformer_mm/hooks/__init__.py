# SPDX-License-Identifier: Apache-2.0
"""What mmengine's runner lacks for the official schedules: hooks and parameter schedulers."""

from .ema import TrackedEMAHook
from .schedule import WarmupCosineLR

__all__ = ['TrackedEMAHook', 'WarmupCosineLR']
