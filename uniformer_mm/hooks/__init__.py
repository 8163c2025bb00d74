# SPDX-License-Identifier: Apache-2.0
"""What mmengine's runner lacks: hooks and parameter schedulers."""

from .autocast import InferenceAutocastHook
from .compile import CompileHook
from .ema import TrackedEMAHook
from .float32 import Float32ModulesHook
from .schedule import WarmupCosineLR

__all__ = [
    'CompileHook',
    'Float32ModulesHook',
    'InferenceAutocastHook',
    'TrackedEMAHook',
    'WarmupCosineLR',
]
