# SPDX-License-Identifier: Apache-2.0
"""Evaluation as the papers measured: protocols, resumable tests, records and reports.

A test has two phases. Collecting runs the toolbox's network over the samples that are not finished
yet and stores what its metrics keep of each; scoring computes the metrics from the store. So an
interrupted test goes on where it stopped, several GPUs need no communication, and reports are made
from what a test has left.
"""

from ..lazy import lazy_names

_NAMES = {
    'ConfusionIoU': '.metrics.confusion',
    'PredictionStore': '.running.store',
    'ResumableTestLoop': '.running.loop',
    'RunningSegTTA': '.running.tta',
    'StackViews': '.running.transforms',
    'ViewAccuracy': '.metrics.views',
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
