# SPDX-License-Identifier: Apache-2.0
"""Runs that cannot be lost: durable checkpoints, exact resuming, and a clear end."""

from .checkpoint_hook import DurableCheckpointHook
from .nonfinite_hook import NonFiniteLossHook
from .stop_hook import RESUME_ME, StopOnSignalHook

__all__ = ['RESUME_ME', 'DurableCheckpointHook', 'NonFiniteLossHook', 'StopOnSignalHook']
