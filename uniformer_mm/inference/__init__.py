# SPDX-License-Identifier: Apache-2.0
"""Prediction on images and clips with any model of the suite; see docs/predict.md."""

from .errors import UnreadableError
from .predictor import Predictor, load_predictor, predict
from .results import Classification, Detections, LabelMap, Poses, Result

__all__ = [
    'Classification',
    'Detections',
    'LabelMap',
    'Poses',
    'Predictor',
    'Result',
    'UnreadableError',
    'load_predictor',
    'predict',
]
