# SPDX-License-Identifier: Apache-2.0
"""Evaluation as the papers measured: protocols, resumable tests, records and reports.

A test has two phases. Collecting runs the toolbox's network over the samples that are not finished
yet and stores what its metrics keep of each; scoring computes the metrics from the store. So an
interrupted test goes on where it stopped, several GPUs need no communication, and reports are made
from what a test has left.
"""

from .loop import ResumableTestLoop
from .metrics import ConfusionIoU, ViewAccuracy
from .store import PredictionStore
from .transforms import StackViews
from .tta import RunningSegTTA

__all__ = [
    'ConfusionIoU',
    'PredictionStore',
    'ResumableTestLoop',
    'RunningSegTTA',
    'StackViews',
    'ViewAccuracy',
]
